//! `config.json`: the meaning of each family's keys, and the reasons of refusals.

use std::fs;

use optune::model::{Activation, Checkpoint, Head, LayerConfig, ModelConfig, QkNorm, RopeScaling};
use serde_json::{Value, json};

use crate::fixtures::models::blank_checkpoint;

/// A minimal `config.json` of a language model, with the changes of a test.
fn config(family: &str, changes: Value) -> Value {
    let mut config = json!({
        "architectures": [format!("{family}ForCausalLM")], "vocab_size": 40, "hidden_size": 24, "intermediate_size": 36,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    });
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    config
}

fn read(family: &str, changes: Value) -> ModelConfig {
    ModelConfig::from_json(&config(family, changes)).unwrap()
}

fn windows(config: &ModelConfig) -> Vec<Option<usize>> {
    config.layers.iter().map(|layer| layer.sliding_window).collect()
}

#[test]
fn what_is_left_out_is_what_transformers_takes() {
    // family: longest context, tied, base of the angles, head_dim, biases of queries and of the MLP
    let defaults = [
        ("Llama", 2048, false, 1e4, 6, false),
        ("Mistral", 131_072, false, 1e4, 6, false),
        ("Qwen2", 32_768, false, 1e4, 6, true),
        ("Qwen3", 32_768, false, 1e4, 128, false),
        ("SmolLM3", 32_768, true, 2e6, 6, false),
    ];
    for (family, context, tied, theta, head_dim, qkv_bias) in defaults {
        let config = read(family, json!({}));
        let found = (config.max_position_embeddings, config.tie_word_embeddings, config.rope.theta, config.head_dim, config.qkv_bias);
        assert_eq!(found, (context, tied, theta, head_dim, qkv_bias), "{family}");
        let qk_norm = (family == "Qwen3").then_some(QkNorm::EachHead);
        assert_eq!((config.o_bias, config.mlp_bias, config.qk_norm), (false, false, qk_norm), "{family}");
        assert_eq!((config.rms_norm_eps, config.initializer_range, config.head), (1e-6, 0.02, Head::CausalLm), "{family}");
        assert_eq!(config.layers.len(), 4);
        let null = read(family, json!({"num_key_value_heads": null}));
        assert_eq!(null.num_key_value_heads, 4, "{family}");
    }
    assert!(read("Llama", json!({"attention_bias": true, "mlp_bias": true})).o_bias);
    assert!(read("Qwen3", json!({"attention_bias": true})).o_bias);
    assert_eq!(read("Llama", json!({"head_dim": null})).head_dim, 6);
    assert_eq!(read("Mistral", json!({"head_dim": 10})).head_dim, 10);
    let reward = json!({"architectures": ["Qwen2ForSequenceClassification"], "model_type": "qwen2", "num_labels": 1});
    assert_eq!(read("Qwen2", reward).head, Head::Reward);
}

#[test]
fn windows_are_in_the_layers_that_transformers_puts_them_in() {
    let none = [None; 4];
    assert_eq!(windows(&read("Mistral", json!({}))), [Some(4096); 4]);
    assert_eq!(windows(&read("Mistral", json!({"sliding_window": null}))), none);
    assert_eq!(windows(&read("Mistral", json!({"sliding_window": 3, "layer_types": vec!["sliding_attention"; 4]}))), [Some(3); 4]);
    for family in ["Qwen2", "Qwen3"] {
        assert_eq!(windows(&read(family, json!({"sliding_window": 3, "max_window_layers": 2}))), none, "{family}");
        let on = json!({"use_sliding_window": true, "sliding_window": 3, "max_window_layers": 2});
        assert_eq!(windows(&read(family, on)), [None, None, Some(3), Some(3)], "{family}");
        assert_eq!(windows(&read(family, json!({"use_sliding_window": true}))), none, "{family}");
        assert_eq!(windows(&read(family, json!({"use_sliding_window": true, "max_window_layers": 0}))), [Some(4096); 4], "{family}");
        let named = json!({"use_sliding_window": true, "sliding_window": 5, "max_window_layers": 0,
            "layer_types": ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]});
        assert_eq!(windows(&read(family, named)), [Some(5), None, None, Some(5)], "{family}");
    }
    let layer = |rotary, sliding_window| LayerConfig { rotary, sliding_window, routed: false };
    let smol = read("SmolLM3", json!({"use_sliding_window": true, "sliding_window": 7}));
    assert_eq!(smol.layers, [layer(true, None), layer(true, None), layer(true, None), layer(false, Some(7))]);
    let smol = read("SmolLM3", json!({"no_rope_layer_interval": 2, "sliding_window": 7}));
    assert_eq!(smol.layers.iter().map(|layer| layer.rotary).collect::<Vec<_>>(), [true, false, true, false]);
    assert_eq!(windows(&smol), none);
    let smol = read("SmolLM3", json!({"no_rope_layers": [0, 1, 1, 0, 1]}));
    assert_eq!(smol.layers.iter().map(|layer| layer.rotary).collect::<Vec<_>>(), [false, true, true, false]);
}

#[test]
fn older_and_newer_words_for_positions_mean_the_same() {
    let scaling = json!({"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16});
    let with = |more: Value| {
        let mut scaling = scaling.clone();
        scaling.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        scaling
    };
    let older = read("Llama", json!({"rope_theta": 5e5, "rope_scaling": with(json!({"rope_type": "llama3"}))}));
    let oldest = read("Llama", json!({"rope_theta": 5e5, "rope_scaling": with(json!({"type": "llama3"}))}));
    let newer = read("Llama", json!({"rope_parameters": with(json!({"rope_type": "llama3", "rope_theta": 5e5}))}));
    assert_eq!((&older.rope, &oldest.rope), (&newer.rope, &newer.rope));
    let Some(RopeScaling::Llama3(scaling)) = newer.rope.scaling else { panic!("{:?}", newer.rope) };
    assert_eq!((scaling.factor, scaling.original_max_position_embeddings), (8.0, 16.0));
    assert_eq!(read("Llama", json!({"rope_scaling": null, "rope_parameters": {"rope_type": "default"}})).rope.scaling, None);
    assert_eq!(read("Llama", json!({"rope_theta": 7e4, "rope_parameters": {"rope_theta": 7e4}})).rope.theta, 7e4);
}

/// As transformers reads them: it passes over keys of type default, and over a share of the head in
/// families that rotate all of it.
#[test]
fn keys_that_transformers_passes_over_change_nothing() {
    let plain = read("Llama", json!({})).rope;
    for changes in [
        json!({"rope_scaling": {"factor": 2.0}}),
        json!({"rope_scaling": {"type": "default", "mrope_section": [2, 2]}}),
        json!({"partial_rotary_factor": 0.5}),
        json!({"rope_parameters": {"rope_type": "default", "beta_fast": 3.0, "unknown": [1]}}),
    ] {
        assert_eq!(read("Llama", changes.clone()).rope, plain, "{changes}");
    }
}

/// What transformers cannot rotate by each token alone is a limit, with its reason.
#[test]
fn sequences_are_as_long_as_their_angles_depend_on_each_token_alone() {
    let limit = |family: &str, changes: Value| read(family, changes).longest_sequence();
    assert_eq!(limit("Llama", json!({})), (2048, None));
    assert_eq!(limit("Llama", json!({"rope_scaling": {"type": "yarn", "factor": 2.0}})), (2048, None));
    let longrope = json!({"type": "longrope", "short_factor": [1, 1, 1], "long_factor": [2, 2, 2]});
    let phi = limit("Phi3", json!({"max_position_embeddings": 131_072, "rope_scaling": longrope}));
    assert_eq!(phi.0, 4096);
    assert!(phi.1.unwrap().contains("rope scaling of type longrope rotates all tokens of a batch by its longest sequence"));
    // Beyond max_position_embeddings there is nothing anyway.
    assert_eq!(limit("Llama", json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}})), (2048, None));
}

#[test]
fn newer_families_are_read_as_transformers_reads_them() {
    let gemma = read("Gemma3", json!({"sliding_window": 512, "num_hidden_layers": 7}));
    assert_eq!(windows(&gemma), [Some(512), Some(512), Some(512), Some(512), Some(512), None, Some(512)]);
    assert_eq!((gemma.rope.theta, gemma.local_rope.as_ref().unwrap().theta), (1e6, 1e4));
    assert_eq!((gemma.activation, gemma.attention_multiplier, gemma.embedding_multiplier), (Activation::GeluTanh, 0.0625, 24f64.sqrt()));
    assert_eq!(gemma.setting_without_gpu_kernels(), Some("norms behind attention and MLP"));
    let gemma = read("Gemma2", json!({"attn_logit_softcapping": null}));
    assert_eq!((gemma.attn_logit_softcapping, gemma.final_logit_softcapping), (None, Some(30.0)));
    assert_eq!(windows(&gemma), [Some(4096), None, Some(4096), None]);
    // A base beside scaled positions is that of layers without a window.
    let olmo = read("Olmo3", json!({"rope_theta": 7e4, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}));
    assert_eq!((olmo.rope.theta, olmo.local_rope.unwrap().theta), (7e4, 5e5));
    assert_eq!(read("Olmo3", json!({})).local_rope, None);
    let phi = read("Phi3", json!({"head_dim": 8, "partial_rotary_factor": 0.5}));
    assert_eq!((phi.rope.partial_rotary_factor, phi.setting_without_gpu_kernels()), (0.5, Some("partial_rotary_factor")));
    assert_eq!(read("Phi3", json!({})).setting_without_gpu_kernels(), None);
    assert_eq!(read("Granite", json!({})).setting_without_gpu_kernels(), Some("attention_multiplier or query_pre_attn_scalar"));
}

#[test]
fn a_wrong_config_is_refused_with_its_reason() {
    let llama3 = |changes: Value| {
        let mut rope = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0});
        rope.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        rope
    };
    let cases = [
        (
            "Gemma",
            json!({}),
            "architectures is GemmaForCausalLM; supported: Gemma3ForCausalLM, Gemma2ForCausalLM, GraniteForCausalLM, LlamaForCausalLM,",
        ),
        (
            "Llama",
            json!({"architectures": null, "model_type": "gpt2"}),
            "architectures is none (model_type is gpt2); supported: Gemma3ForCausalLM, ",
        ),
        ("Llama", json!({"architectures": []}), "architectures is none; supported: Gemma3ForCausalLM, "),
        ("Llama", json!({"architectures": ["LlamaForTokenClassification"]}), "architectures is LlamaForTokenClassification; supported"),
        ("Llama", json!({"model_type": "mistral"}), "architectures says LlamaForCausalLM, but model_type is mistral, expected llama"),
        ("Llama", json!({"hidden_size": null}), "hidden_size is missing"),
        ("Llama", json!({"hidden_size": 0}), "hidden_size is 0"),
        ("Llama", json!({"hidden_size": "wide"}), "hidden_size: invalid type: string \"wide\", expected usize"),
        ("Llama", json!({"vocab_size": 1u64 << 40}), "vocab_size is 1099511627776"),
        ("Llama", json!({"num_hidden_layers": 1u64 << 40}), "num_hidden_layers is 1099511627776"),
        ("Llama", json!({"num_key_value_heads": 3}), "not a multiple of num_key_value_heads (3)"),
        ("Llama", json!({"num_key_value_heads": 0}), "num_key_value_heads is 0"),
        ("Llama", json!({"num_attention_heads": 0}), "num_attention_heads is 0"),
        ("Llama", json!({"num_attention_heads": 48}), "head_dim is 0"),
        ("Llama", json!({"head_dim": 7}), "expected an even number"),
        ("Llama", json!({"rms_norm_eps": 0.0}), "rms_norm_eps is 0"),
        ("Llama", json!({"hidden_act": "gelu"}), "hidden_act is gelu; supported: silu"),
        ("Llama", json!({"attention_bias": "yes"}), "attention_bias: invalid type"),
        ("Llama", json!({"is_causal": false}), "is_causal is false, but only causal attention is supported"),
        ("Llama", json!({"quantization_config": {"quant_method": "fp8"}}), "quantization_config: quantized weights are not supported"),
        ("Llama", json!({"rope_theta": -1.0}), "rope_theta is -1, expected a positive number"),
        (
            "Llama",
            json!({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5}}),
            "rope_theta is 10000, but rope_parameters says 500000",
        ),
        (
            "Llama",
            json!({"rope_scaling": {"type": "proportional", "factor": 2.0}}),
            "rope_scaling of type proportional is not supported; supported: default, linear, dynamic, yarn, longrope, llama3",
        ),
        ("Llama", json!({"rope_scaling": {"type": "linear"}}), "rope_scaling of type linear: factor is missing"),
        ("Llama", json!({"rope_scaling": {"type": "linear", "factor": 0.0}}), "factor is 0, expected a positive number"),
        ("Llama", json!({"rope_scaling": {"rope_type": "dynamic"}}), "rope_scaling of type dynamic: factor is missing"),
        ("Llama", json!({"rope_scaling": {"type": "yarn", "factor": 2.0, "finetuned": true}}), "has finetuned, which is not supported"),
        ("Llama", json!({"rope_scaling": {"type": "yarn", "factor": -2.0}}), "factor is -2, expected a positive number"),
        ("Phi3", json!({"rope_scaling": {"type": "su", "long_factor": [1, 1, 1]}}), "of type longrope: short_factor is missing"),
        (
            "Phi3",
            json!({"rope_scaling": {"type": "su", "long_factor": [1], "short_factor": [1]}}),
            "short_factor has 1 numbers, expected one a pair (3)",
        ),
        (
            "Phi3",
            json!({"partial_rotary_factor": 0.5}),
            "partial_rotary_factor is 0.5, expected at most 1 and an even part of head_dim (6)",
        ),
        ("Phi3", json!({"partial_rotary_factor": 2.0}), "partial_rotary_factor is 2, expected at most 1"),
        ("Gemma3", json!({"rope_parameters": {"rope_theta": 1e4}}), "rope_parameters has rope_theta, expected full_attention and sliding"),
        ("Gemma3", json!({"sliding_window": null}), "sliding_window is null, expected a number of tokens"),
        ("Gemma3", json!({"sliding_window_pattern": 0}), "sliding_window_pattern is 0"),
        ("Gemma2", json!({"use_bidirectional_attention": true}), "use_bidirectional_attention is true"),
        ("Gemma2", json!({"attn_logit_softcapping": -1.0}), "attn_logit_softcapping is -1, expected a positive number"),
        ("Gemma2", json!({"hidden_activation": "gelu"}), "hidden_activation is gelu; supported: silu, gelu_pytorch_tanh"),
        ("Granite", json!({"logits_scaling": 0.0}), "logits_scaling is 0, expected a positive number"),
        ("Granite", json!({"architectures": ["GraniteForSequenceClassification"]}), "architectures is GraniteForSequenceClassification"),
        ("Llama", json!({"rope_scaling": llama3(json!({})), "rope_parameters": {"rope_theta": 1e4}}), "say different things"),
        ("Llama", json!({"rope_scaling": llama3(json!({"factor": null}))}), "rope_scaling of type llama3: factor is missing"),
        ("Llama", json!({"rope_scaling": llama3(json!({"factor": 0.0}))}), "factor is 0, expected a positive number"),
        (
            "Llama",
            json!({"rope_scaling": llama3(json!({"high_freq_factor": 1.0}))}),
            "high_freq_factor is 1, expected more than low_freq_factor (1)",
        ),
        (
            "Llama",
            json!({"partial_rotary_factor": 0.5, "rope_scaling": {"type": "linear", "factor": 2.0}}),
            "partial_rotary_factor is 0.5; supported: 1",
        ),
        ("Llama", json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}), "has full_attention, which is not supported"),
        ("Mistral", json!({"sliding_window": 0}), "sliding_window is 0, expected 1 or more, or null for none"),
        (
            "Mistral",
            json!({"sliding_window": 4, "layer_types": ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]}),
            "layer_types gives layers different windows",
        ),
        ("Qwen2", json!({"use_sliding_window": true, "sliding_window": 0}), "sliding_window is 0"),
        (
            "Qwen2",
            json!({"layer_types": vec!["sliding_attention"; 4]}),
            "layer_types has sliding_attention, but there is no sliding window in use",
        ),
        ("Qwen2", json!({"layer_types": vec!["full_attention"; 3]}), "layer_types has 3 entries, expected one a layer (4)"),
        (
            "Qwen3",
            json!({"layer_types": vec!["chunked_attention"; 4]}),
            "layer_types has chunked_attention; supported: full_attention, sliding_attention",
        ),
        ("Qwen2", json!({"use_mrope": true}), "use_mrope is true"),
        ("SmolLM3", json!({"no_rope_layers": [1, 0]}), "no_rope_layers has 2 entries, expected one a layer (4)"),
        ("SmolLM3", json!({"no_rope_layer_interval": 0}), "no_rope_layer_interval is 0"),
        ("Qwen3", json!({"architectures": ["Qwen3ForSequenceClassification"], "num_labels": 2}), "expected a classifier with 1 label"),
    ];
    for (family, changes, expected) in cases {
        let error = ModelConfig::from_json(&config(family, changes.clone())).unwrap_err();
        assert!(error.contains(expected), "{family} {changes}: {error}");
    }
    assert!(ModelConfig::from_json(&json!([])).is_err());
}

#[test]
fn errors_name_the_file_and_other_files_must_fit_it() {
    let cases = [
        ("hidden_size", json!(0), "config.json: hidden_size is 0"),
        ("vocab_size", json!(20), "tokenizer.json: token ids reach 29, but vocab_size in config.json is 20"),
        ("eos_token_id", json!([2, 50]), "generation_config.json: eos_token_id is 50, expected a token from 0 to 39"),
    ];
    for (name, value, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        blank_checkpoint(folder.path(), true);
        let path = folder.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config[name] = value;
        fs::write(&path, config.to_string()).unwrap();
        let error = Checkpoint::open_blank(folder.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    let folder = tempfile::tempdir().unwrap();
    blank_checkpoint(folder.path(), true);
    fs::write(folder.path().join("generation_config.json"), r#"{"eos_token_id": [1, 2]}"#).unwrap();
    let checkpoint = Checkpoint::open_blank(folder.path()).unwrap();
    assert_eq!((checkpoint.generation.eos_token_ids, checkpoint.config.eos_token_ids), (vec![1, 2], vec![2]));
}
