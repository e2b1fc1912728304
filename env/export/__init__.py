"""`autotts export`: a controller and a small runtime, as one file that needs the openai package alone.

`settings`, `program`, `answers`, `server`, `branch`, `scoring`, `episode` and `runtime` are its parts. They
import the standard library, openai and one another. `assemble` reads their text, leaves out what they import
of each other, and puts a controller in the place of the one in `program`.
"""
