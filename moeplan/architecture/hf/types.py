"""What a model's code knows and its `config.json` does not say, by `model_type`: a table, each row with its reason.

It is no list of what can be read: any other model type is read by its keys alone, and what is taken for granted is
said. Rows were compared with the params of the real classes of transformers 5.23 on the meta device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

EVERYTHING = ("routed_experts", "shared_experts", "router", "attention", "dense_ffn", "norms")
"""The groups of params inside the blocks; see `moeplan.architecture.counting.GROUPS`."""


@dataclass(frozen=True)
class Gap:
    """Something a model has that is not counted."""

    what: str
    """What it is, as part of a sentence."""
    groups: tuple[str, ...]
    """The groups whose counts it leaves unknown; none for parts outside the language model."""


@dataclass(frozen=True)
class TypeFacts:
    """What is true of every model of one type."""

    reason: str
    """Why, in a few words: the class or the paper that has it so."""
    fields: Mapping[str, object] = field(default_factory=dict)
    """Fields of `Architecture` that no key states."""
    attention_bias: str = "all"
    """What the key attention_bias switches on: "qkv", "all" (output map too) or "none"."""
    ties: bool = True
    """Whether the class ties its embeddings where the file says so."""
    one_shared: bool = False
    """Whether there is one shared expert of the stated width, whatever number of them is stated."""
    qk_norm: str = "head"
    """What a key such as use_qk_norm switches on: "head", "full", "none" (a norm without weights), "other"."""
    gated: bool | None = False
    """Whether feed-forward blocks are gated whatever the activation is called; None where they are not gated."""
    attention: Mapping[str, object] = field(default_factory=dict)
    """Fields of the kind of attention that no key states."""
    moe_extra: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Params of one layer with experts that no field speaks of, by group: times d_model, times num_experts."""
    dense_beside: bool = False
    """Whether a dense block as wide as intermediate_size runs beside the experts."""
    post_norms: str = ""
    """The key that switches on a norm behind each sub-block, beside the one before it; "" for none."""
    head_bias: bool = False
    """Whether the key lm_head_bias switches on a bias of the output head."""
    gaps: tuple[Gap, ...] = ()
    """What models of this type have that `Architecture` cannot express."""


# LayerNorm has a weight and a bias: as many params as two RMS norms.
_LAYER_NORM = {"norms_per_block": 4, "num_final_norms": 2}
_FOUR_NORMS = {"norms_per_block": 4}
_PLAIN = TypeFacts("its class follows Llama: no biases, no query-key norms but where the file says so")


def _head(reason: str = "its attention class norms queries and keys by head") -> TypeFacts:
    return TypeFacts(reason, {"qk_norm": "head"})


def _gap(what: str, *groups: str) -> TypeFacts:
    return TypeFacts("its class", gaps=(Gap(what, groups or EVERYTHING),))


_LIKE_LLAMA = (
    "llama", "mistral", "ministral3", "mixtral", "granite", "granitemoe", "granitemoeshared", "smollm3", "phi3",
    "deepseek", "deepseek_v2", "deepseek_v3", "glm4_moe_lite", "youtu", "cwm", "ernie4_5", "minicpm3",
    "emu3", "aria_text", "bailing_moe", "bailing_moe_v2", "internlm3", "iquestcoder", "pangu_pro_moe",
    "kimi_k2", "mistral4", "deepseek_ocr2_text", "unlimited_ocr_text", "deepseek_v32", "glm_moe_dsa",
    "xverse", "jamba", "minimax", "granitemoehybrid",
)  # fmt: skip

TYPES: dict[str, TypeFacts] = {
    **dict.fromkeys(_LIKE_LLAMA, _PLAIN),
    "hyperclovax": TypeFacts("HyperCLOVAX's blocks may have norms behind their parts", post_norms="use_post_norm"),
    "qwen2": TypeFacts("Qwen2Attention has biases on q, k and v", {"qkv_bias": True}),
    "qwen2_moe": TypeFacts(
        "Qwen2MoeAttention has biases on q, k and v, its shared expert a gate",
        {"qkv_bias": True, "shared_expert_gate": True},
    ),
    "qwen3": _head(),
    "qwen3_moe": _head(),
    "qwen3_vl_moe_text": _head(),
    "qwen3_omni_moe_text": _head(),
    "qwen3_omni_moe_talker_text": TypeFacts(
        "its attention class norms queries and keys by head, its shared expert has a gate; it speaks",
        {"qk_norm": "head", "shared_expert_gate": True},
        gaps=(Gap("a head that predicts codes of sound, and maps from text to them", ("output_head",)),),
    ),
    "hy_v3": _head(),
    "minimax_m3_vl_text": _head(),
    "dots1": _head(),
    "hunyuan_v1_dense": _head(),
    "hunyuan_v1_moe": TypeFacts(
        "HunYuanMoEV1Moe has one shared block; its attention class norms queries and keys by head",
        {"qk_norm": "head", "num_shared_experts": 1},
    ),
    "exaone4": _head(),
    "exaone_moe": _head(),
    "olmoe": TypeFacts("OlmoeAttention norms queries and keys over their full width", {"qk_norm": "full"}),
    "olmo2": TypeFacts("Olmo2Attention norms queries and keys over their full width", {"qk_norm": "full"}),
    "olmo3": TypeFacts("Olmo3Attention norms queries and keys over their full width", {"qk_norm": "full"}),
    "olmo_hybrid": TypeFacts("OlmoHybridAttention norms queries and keys over their full width", {"qk_norm": "full"}),
    "flex_olmo": TypeFacts("FlexOlmoAttention norms queries and keys over their full width", {"qk_norm": "full"}),
    "kimi_linear": TypeFacts("KimiLinearForCausalLM does not tie its embeddings", ties=False),
    "mimo_v2_flash": TypeFacts("MiMoV2FlashAttention has no bias on its output map", attention_bias="qkv"),
    "minimax_m2": TypeFacts(
        "MiniMaxM2Attention norms queries and keys over their full width", {"qk_norm": "full"}, qk_norm="full"
    ),
    "glm4_moe": TypeFacts("Glm4MoeAttention has no bias on its output map", attention_bias="qkv"),
    "glm4v_moe_text": TypeFacts("Glm4vMoeTextAttention has no bias on its output map", attention_bias="qkv"),
    "solar_open": TypeFacts("SolarOpenAttention has no bias on its output map", attention_bias="qkv"),
    "helium": TypeFacts("HeliumAttention has no bias on its output map", attention_bias="qkv"),
    "glm": TypeFacts("GlmAttention has no bias on its output map", attention_bias="qkv"),
    "glm4": TypeFacts("Glm4DecoderLayer has four norms; no bias on the output map", _FOUR_NORMS, attention_bias="qkv"),
    "seed_oss": TypeFacts("SeedOssAttention names the output map's bias apart", attention_bias="qkv"),
    "gpt_oss": TypeFacts(
        "GptOss has one sink a head and biases in router and experts",
        {"attention_sinks": True, "router_bias": True, "expert_bias": True},
    ),
    "openai_privacy_filter": TypeFacts(
        "its blocks are those of GptOss; its class labels tokens",
        {"attention_sinks": True, "router_bias": True, "expert_bias": True},
        gaps=(Gap("a head that labels tokens in place of a language model's", ("output_head",)),),
    ),
    "llama4_text": TypeFacts(
        "Llama4TextMoe has one shared expert as wide as a routed one; its query-key norm has no weights",
        {"num_shared_experts": 1},
        qk_norm="none",
    ),
    "ernie4_5_moe": TypeFacts(
        "the router's correction bias is a parameter in Ernie4_5_Moe", {"router_correction_bias": True}
    ),
    "gemma": TypeFacts("GemmaMLP is gated by gelu, embeddings are tied", {"tied_embeddings": True}, gated=True),
    "gemma2": TypeFacts(
        "Gemma2DecoderLayer has four norms and a gelu gate", {**_FOUR_NORMS, "tied_embeddings": True}, gated=True
    ),
    "gemma3_text": TypeFacts(
        "Gemma3DecoderLayer has four norms, query-key norms and a gelu gate",
        {**_FOUR_NORMS, "qk_norm": "head", "tied_embeddings": True},
        gated=True,
    ),
    "vaultgemma": TypeFacts("VaultGemma is gated by gelu, embeddings are tied", {"tied_embeddings": True}, gated=True),
    "grok-1": TypeFacts(
        "Grok-1's blocks have four norms and a gelu gate, two norms stand outside",
        {**_FOUR_NORMS, "num_final_norms": 2},
        gated=True,
    ),
    "phimoe": TypeFacts("PhimoeDecoderLayer has LayerNorms, with biases", _LAYER_NORM, head_bias=True),
    "stablelm": TypeFacts("StableLmDecoderLayer has LayerNorms, with biases", _LAYER_NORM, qk_norm="other"),
    "cohere": TypeFacts(
        "CohereDecoderLayer has one norm for both sub-blocks",
        {"norms_per_block": 1, "tied_embeddings": True},
        qk_norm="other",
    ),
    "cohere2": TypeFacts(
        "Cohere2DecoderLayer has one norm for both sub-blocks", {"norms_per_block": 1, "tied_embeddings": True}
    ),
    "cohere2_moe": TypeFacts(
        "Cohere2MoeDecoderLayer has one norm for both sub-blocks", {"norms_per_block": 1, "tied_embeddings": True}
    ),
    "olmo": TypeFacts("OlmoLayerNorm has no weights", {"norms_per_block": 0, "num_final_norms": 0}),
    "nanochat": _gap("feed-forward blocks that are not gated and norms without weights", "dense_ffn", "norms"),
    "mellum": _head(),
    "dbrx": TypeFacts("DbrxBlock has two norms without biases and gated experts", gated=True),
    "granite_swa": TypeFacts("GraniteSWAAttention has one sink a head", {"attention_sinks": True}),
    "granitemoe_swa": TypeFacts("GraniteMoeSWAAttention has one sink a head", {"attention_sinks": True}),
    "flint": TypeFacts(
        "FlintAttention norms by head and has one sink a head", {"qk_norm": "head", "attention_sinks": True}
    ),
    "kolibri1": TypeFacts(
        "Kolibri1DecoderLayer has four norms, and query-key norms", {**_FOUR_NORMS, "qk_norm": "head"}
    ),
    "axk1": TypeFacts("AXK1's blocks with experts have a third norm", moe_extra={"norms": (1, 0)}),
    **dict.fromkeys(
        ("qwen3_next", "qwen3_5_moe_text"),
        TypeFacts(
            "its attention norms queries and keys by head and gates its output, its shared expert has a gate",
            {"qk_norm": "head", "shared_expert_gate": True},
            attention={"gate": "full", "gate_in_query": True},
        ),
    ),
    **dict.fromkeys(
        ("qwen3_5_text",),
        TypeFacts(
            "its attention norms queries and keys by head and gates its output",
            {"qk_norm": "head"},
            attention={"gate": "full", "gate_in_query": True},
        ),
    ),
    "bailing_hybrid": TypeFacts(
        "its latent attention gates every head, its embeddings are never tied", attention={"gate": "head"}, ties=False
    ),
    "nemotron_h": TypeFacts(
        "its blocks are one part each with one norm, its feed-forward parts relu^2 without a gate",
        {"norms_per_block": 1},
        gated=None,
        attention_bias="none",
        ties=False,
        one_shared=True,
    ),
    "lfm2_moe": _head("Lfm2MoeAttention norms queries and keys by head"),
    "lfm2": _head("Lfm2Attention norms queries and keys by head"),
    "qwen3_vl_text": _head(),
    "minicpm": TypeFacts("MiniCPM ties its embeddings unless told otherwise", {"tied_embeddings": True}),
    "afmoe": TypeFacts(
        "AfmoeAttention gates its output and norms queries and keys by head; four norms a block",
        {**_FOUR_NORMS, "qk_norm": "head", "router_correction_bias": True},
        attention={"gate": "full"},
    ),
    "beam": TypeFacts(
        "BeamAttention gates its output, with a bias a head, and norms queries and keys by head; four norms a block",
        {**_FOUR_NORMS, "qk_norm": "head"},
        attention={"gate": "full", "gate_bias": True},
    ),
    "gemma4_text": TypeFacts(
        "Gemma4TextDecoderLayer has a dense block beside the experts, four norms, three more with experts, query-key "
        "norms, a gelu gate and scales in the router",
        {**_FOUR_NORMS, "qk_norm": "head", "tied_embeddings": True},
        gated=True,
        moe_extra={"norms": (3, 0), "router": (1, 1)},
        dense_beside=True,
    ),
    "diffllama": _gap("the weights of differential attention", "attention"),
    "laguna": TypeFacts(
        "LagunaAttention gates its heads and norms queries and keys by head; the correction bias is a parameter",
        {"qk_norm": "head", "router_correction_bias": True},
        attention={"gate": "head"},
    ),
    **dict.fromkeys(
        ("step3p7", "step3p7_text"),
        TypeFacts(
            "Step3p7Attention gates its heads and norms queries and keys by head",
            {"qk_norm": "head"},
            attention={"gate": "head"},
        ),
    ),
    "step3p5": _gap("a gate on attention's output, query-key norms and experts of their own kind"),
    "muse_spark_text": _gap("experts of another width than the residual stream, and gates on attention and residuals"),
    "doge": _gap("weights on residuals and a learned attention mask"),
    "jetmoe": _gap("experts in attention", "attention"),
    "phi4_multimodal": _gap("adapters of its image and sound towers", "attention", "dense_ffn"),
    "longcat_flash": _gap("two attention blocks and a dense one beside the experts in each layer"),
    "hunyuan": _gap("layers that share keys and values with others (cross-layer attention)", "attention"),
    "step3_text": _gap("multi-matrix-factorised attention", "attention"),
}
"""Facts by model_type."""
