"""The model side of live episodes: streams of vLLM engines and servers, as `env.live.model` wants them."""
