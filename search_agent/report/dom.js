"use strict";
// What the other scripts build with. Text goes in as text, never as markup.

const at = (id) => document.getElementById(id);
const read = (id) => (at(id) ? JSON.parse(at(id).textContent) : null);

const filled = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("--")) node.style.setProperty(name, value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
};
const make = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) =>
  filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const short = (number) => {
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (number >= 0.9995 * size) return `${Number((number / size).toPrecision(3))}${unit}`;
  }
  return `${Number(number.toPrecision(3))}`;
};

const chooser = (label, names, chosen, changed) => {
  const options = names.map((name, k) => make("option", { value: k, selected: k === chosen }, name));
  const select = make("select", { onchange: () => changed(Number(select.value)) }, ...options);
  return make("label", {}, label, select);
};
const radios = (legend, name, labels, chosen, changed) =>
  make("fieldset", {}, make("legend", {}, legend), ...labels.map((label, k) =>
    make("label", {}, make("input", { type: "radio", name, checked: k === chosen, onchange: () => changed(k) }), label)));
