"""An OpenAI-compatible endpoint whose replies a controller finds: `autotts serve`."""
