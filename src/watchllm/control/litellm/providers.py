"""What LiteLLM calls the providers, where it looks for their keys, and which of ours a deployment's place becomes."""

from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from watchllm.domain.snapshot import Vendor

# By the prefix of `litellm_params.model` (docs.litellm.ai/docs/providers).
NAMES = {
    "openai": "openai",
    "text-completion-openai": "openai",
    "anthropic": "anthropic",
    "groq": "groq",
    "openrouter": "openrouter",
    "mistral": "mistral",
    "codestral": "mistral",
    "deepseek": "deepseek",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "xai": "xai",
    "cerebras": "cerebras",
    "perplexity": "perplexity",
    "gemini": "gemini",
    "azure": "azure",
    "ollama": "ollama",
    "ollama_chat": "ollama",
    "hosted_vllm": "vllm",
    "vllm": "vllm",
    "lm_studio": "lmstudio",
    "nvidia_nim": "nvidia",
    "deepinfra": "deepinfra",
    "sambanova": "sambanova",
    "moonshot": "moonshot",
    "dashscope": "dashscope",
}
# Where LiteLLM finds the key of a deployment that names none.
VARIABLES = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "groq": "GROQ_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "mistral": "MISTRAL_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "together": "TOGETHERAI_API_KEY",
    "fireworks": "FIREWORKS_AI_API_KEY",
    "xai": "XAI_API_KEY",
    "cerebras": "CEREBRAS_API_KEY",
    "perplexity": "PERPLEXITYAI_API_KEY",
    "gemini": "GEMINI_API_KEY",
    "azure": "AZURE_API_KEY",
    "nvidia": "NVIDIA_NIM_API_KEY",
    "deepinfra": "DEEPINFRA_API_KEY",
    "sambanova": "SAMBANOVA_API_KEY",
    "moonshot": "MOONSHOT_API_KEY",
    "dashscope": "DASHSCOPE_API_KEY",
}


def base_url(vendor: Vendor, api_base: str) -> str | None:
    """A deployment's `api_base` as the base URL of a provider key; None where it is the vendor's own."""
    url = api_base.rstrip("/")
    try:
        parts = urlsplit(url)
    except ValueError:
        # Whoever adds the key says what is wrong with it.
        return url
    if vendor.name == "azure":
        # Whatever form it has, resources answer at this one, and take the deployment's name as the model.
        return f"{parts.scheme}://{parts.netloc}/openai/v1"
    if vendor.name == "ollama" and not parts.path:
        return f"{url}/v1"
    if vendor.dialects == ("messages",) and not parts.path:
        url = f"{url}/v1"
    return None if url == vendor.base_url else url


class Places:
    """Names the provider of each place that deployments are at. A provider has one place: its keys stand in for each
    other, which those of two places cannot. `existing` are the base URLs of the project's providers now."""

    def __init__(self, vendors: Mapping[str, Vendor], existing: Mapping[str, Collection[str | None]]) -> None:
        self._vendors = vendors
        self._existing = existing
        self._names: dict[tuple[str, str | None], str] = {}

    def provider(self, vendor: Vendor, url: str | None) -> str:
        name = self._names.get((vendor.name, url))
        if name is None:
            name = self._names[vendor.name, url] = self._named(vendor, url)
        return name

    def _named(self, vendor: Vendor, url: str | None) -> str:
        if url is None or (vendor.needs_base_url and self._is_free(vendor.name, url)):
            return vendor.name
        host = url.partition("://")[2].partition("/")[0].rpartition("@")[2].lower()
        plain = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in host)
        slug = plain.strip("-")[:48] or "imported"
        name, number = slug, 1
        while name in self._vendors or not self._is_free(name, url):
            number += 1
            name = f"{slug}-{number}"
        return name

    def _is_free(self, name: str, url: str) -> bool:
        places = {place for place in self._existing.get(name, ()) if place is not None}
        return name not in self._names.values() and places <= {url}
