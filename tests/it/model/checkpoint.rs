//! The model against Hugging Face's own numbers, and errors about its checkpoint, tokenizer and
//! chat template.

use std::fs;
use std::path::Path;

use burn::tensor::DType;
use optune::compute::{CausalLm, DeviceChoice, Padding, Placement};
use optune::model::{ChatTemplate, Checkpoint, Message, SpecialTokens};
use optune::token_lists::TokenLists;
use serde_json::{Value, json};

use crate::fixtures::export_folder::export_folder;
use crate::fixtures::models::{all_logits, blank, blank_checkpoint, device, ids, largest_difference, values};
use crate::fixtures::real_data::real;

#[test]
fn stories_logits_and_greedy_ids_are_those_of_hugging_face() {
    let (Some(folder), Some(golden)) = (real("stories260K"), real("golden/stories260K.json")) else { return };
    let golden: Value = serde_json::from_str(&fs::read_to_string(golden).unwrap()).unwrap();
    let numbers = |name: &str| -> Vec<f64> { golden[name].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect() };
    let greedy: Vec<i32> = numbers("greedy_ids").iter().map(|id| *id as i32).collect();
    let prefix: Vec<i32> = numbers("prefix").iter().map(|id| *id as i32).collect();
    let expected: Vec<f32> = numbers("logits_pos8").iter().map(|logit| *logit as f32).collect();

    let device = device();
    let model = Checkpoint::open(&folder).unwrap().load(&device).unwrap();
    let vocabulary = expected.len();
    let logits = all_logits(&model, &prefix);
    assert!(largest_difference(&logits[logits.len() - vocabulary..], &expected) < 1e-4);

    // Without the cache one pass over the whole sequence predicts every next id.
    let predicted: Vec<i32> = all_logits(&model, &greedy[..greedy.len() - 1]).chunks(vocabulary).map(argmax).collect();
    assert_eq!(predicted, greedy[1..]);

    // Through the cache each id is fed back.
    let mut cache = model.new_cache();
    let mut produced = vec![greedy[0]];
    for step in 0..greedy.len() - 1 {
        let placement = Placement::next(&[0], step, &device);
        let hidden = model.hidden(ids(&[&produced[step..]], &device), &placement, Some(&mut cache));
        produced.push(argmax(&values(model.logits(hidden))));
    }
    assert_eq!(produced, greedy);
}

fn argmax(logits: &[f32]) -> i32 {
    let best = logits.iter().enumerate().max_by(|left, right| left.1.total_cmp(right.1));
    best.unwrap().0 as i32
}

#[test]
fn padding_and_cache_do_not_change_logits() {
    let (_folder, checkpoint) = blank(false);
    let device = device();
    let model = checkpoint.init(&device, 3);
    let rows: [&[i32]; 3] = [&[1, 5, 6, 7, 8], &[1, 9], &[1, 30, 31]];
    let alone: Vec<Vec<f32>> = rows.iter().map(|row| all_logits(&model, row)).collect();
    let vocabulary = checkpoint.config.vocab_size;
    let sequences = TokenLists::from_rows(&rows.map(<[i32]>::to_vec)).unwrap();

    let right = sequences.to_padded(&[0, 1, 2], Padding::Right, &device).unwrap();
    let logits = values(model.logits(model.hidden(right, &Placement::right_padded(5, &device), None)));
    for (row, alone) in alone.iter().enumerate() {
        assert!(largest_difference(&logits[row * 5 * vocabulary..][..alone.len()], alone) < 1e-4, "right-padded row {row}");
    }

    // A prefill of all but the last token, its rows reordered and repeated, then the last token
    // through the cache.
    let starts: Vec<Vec<i32>> = rows.iter().map(|row| row[..row.len() - 1].to_vec()).collect();
    let starts = TokenLists::from_rows(&starts).unwrap();
    let mut cache = model.new_cache();
    let left = starts.to_padded(&[0, 1, 2], Padding::Left, &device).unwrap();
    let hidden = model.hidden(left, &Placement::left_padded(&starts.lengths().collect::<Vec<_>>(), &device), Some(&mut cache));
    let logits = values(model.logits(hidden.narrow(1, 3, 1)));
    for (row, alone) in alone.iter().enumerate() {
        let before_last = &alone[alone.len() - 2 * vocabulary..][..vocabulary];
        assert!(largest_difference(&logits[row * vocabulary..][..vocabulary], before_last) < 1e-4, "prefilled row {row}");
    }
    let order = [2, 0, 2, 1];
    cache.select_rows(&order, &device);
    let padding: Vec<usize> = order.iter().map(|&row| 4 - starts.length(row)).collect();
    let last: Vec<&[i32]> = order.iter().map(|&row| &rows[row][rows[row].len() - 1..]).collect();
    let logits =
        values(model.logits(model.hidden(ids(&last, &device), &Placement::next(&padding, cache.length(), &device), Some(&mut cache))));
    for (place, &row) in order.iter().enumerate() {
        let expected = &alone[row][alone[row].len() - vocabulary..];
        assert!(largest_difference(&logits[place * vocabulary..][..vocabulary], expected) < 1e-4, "cached row {row}");
    }
}

#[test]
fn autodiff_reaches_every_parameter() {
    for tied in [true, false] {
        let (_folder, checkpoint) = blank(tied);
        let device = device().autodiff();
        let model = checkpoint.init(&device, 5);
        let tokens = ids(&[&[1, 5, 6, 7], &[1, 8, 9, 9]], &device);
        let loss = model.logits(model.hidden(tokens, &Placement::right_padded(4, &device), None)).square().mean();
        let gradients = loss.backward();
        for weight in [
            model.model.embed_tokens.weight.val(),
            model.model.layers[1].self_attn.k_proj.as_ref().unwrap().weight.val(),
            model.model.layers[0].mlp.as_ref().unwrap().down_proj.weight.val(),
        ] {
            let gradient = weight.grad(&gradients).expect("a gradient");
            assert!(values(gradient.abs().max()) > vec![0.0]);
        }
        assert!(model.model.norm.gamma.val().grad(&gradients).is_some());
        assert_eq!(model.lm_head.is_some(), !tied);
    }
}

#[test]
fn sequences_are_gathered_from_one_buffer() {
    let device = device();
    let sequences = TokenLists::from_rows(&[vec![1, 2, 3], vec![4], vec![5, 6]]).unwrap();
    let ids = sequences.clone().into_parts().0.to_vec();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
    let gathered = |rows: &[usize], padding| -> Vec<i32> {
        let tensor = sequences.to_padded(rows, padding, &device).unwrap();
        assert_eq!(tensor.dtype(), DType::I32);
        tensor.into_data().try_into_vec().unwrap()
    };
    assert_eq!(gathered(&[2, 0], Padding::Right), [5, 6, 6, 1, 2, 3]);
    assert_eq!(gathered(&[1, 2], Padding::Left), [4, 4, 5, 6]);
    assert!(sequences.to_padded(&[3], Padding::Left, &device).unwrap_err().to_string().contains("row 3 does not exist"));
    assert!(sequences.to_padded(&[], Padding::Left, &device).is_err());
    assert!(TokenLists::from_rows(&[vec![1], vec![]]).unwrap_err().to_string().contains("row 1 is empty"));
    assert!(TokenLists::from_lengths(ids, &[2, 2]).unwrap_err().to_string().contains("add up to 4 tokens, but there are 6"));
}

#[test]
fn saved_models_load_bit_identical_and_save_to_the_same_bytes() {
    for tied in [true, false] {
        let (_folder, checkpoint) = blank(tied);
        let device = device();
        let model = checkpoint.init(&device, 7);
        let saved = tempfile::tempdir().unwrap();
        checkpoint.save(saved.path(), &model).unwrap();
        let again = tempfile::tempdir().unwrap();
        let reopened = Checkpoint::open(saved.path()).unwrap();
        reopened.save(again.path(), &reopened.load(&device).unwrap()).unwrap();
        for name in ["config.json", "model.safetensors", "tokenizer.json"] {
            assert_eq!(fs::read(saved.path().join(name)).unwrap(), fs::read(again.path().join(name)).unwrap(), "{name}");
        }
        let config: Value = serde_json::from_slice(&fs::read(saved.path().join("config.json")).unwrap()).unwrap();
        assert_eq!(config["torch_dtype"], "float32");
        assert_eq!(all_logits(&model, &[1, 5, 6]), all_logits(&reopened.load(&device).unwrap(), &[1, 5, 6]));
        let (_folder, other) = blank(!tied);
        assert!(other.save(again.path(), &model).unwrap_err().to_string().contains("other parameters"));
    }
}

#[test]
fn stories_survive_saving_bit_for_bit() {
    let Some(folder) = real("stories260K") else { return };
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let model = checkpoint.load(&device()).unwrap();
    let saved = tempfile::tempdir().unwrap();
    checkpoint.save(saved.path(), &model).unwrap();
    let reloaded = Checkpoint::open(saved.path()).unwrap().load(&device()).unwrap();
    let sequence = [1, 403, 407, 261, 378];
    assert_eq!(all_logits(&model, &sequence), all_logits(&reloaded, &sequence));
    assert_eq!(checkpoint.parameter_count(), 260_032);
}

#[test]
fn initial_weights_depend_on_the_seed_alone() {
    let (_folder, checkpoint) = blank(true);
    let device = device();
    let weights = |seed| values(checkpoint.init(&device, seed).model.layers[1].mlp.as_ref().unwrap().up_proj.weight.val());
    assert_eq!(weights(1), weights(1));
    assert_ne!(weights(1), weights(2));
    let (count, mean) = (weights(1).len() as f32, weights(1).iter().sum::<f32>() / weights(1).len() as f32);
    let deviation = (weights(1).iter().map(|weight| (weight - mean).powi(2)).sum::<f32>() / count).sqrt();
    assert!(mean.abs() < 0.03 && (deviation - 0.2).abs() < 0.02, "mean {mean}, standard deviation {deviation}");
}

#[test]
fn wrong_weights_are_found_before_they_are_loaded() {
    let (folder, checkpoint) = blank(false);
    let path = folder.path();
    let refused = || Checkpoint::open(path).unwrap_err().to_string();
    assert!(refused().contains("no weights: expected model.safetensors or model.safetensors.index.json"));
    assert!(checkpoint.load(&device()).unwrap_err().to_string().contains("opened without weights"));

    let (_tied_folder, tied) = blank(true);
    tied.save(path, &tied.init(&device(), 1)).unwrap();
    blank_checkpoint(path, false);
    assert!(refused().contains("lm_head.weight is missing"), "{}", refused());

    checkpoint.save(path, &checkpoint.init(&device(), 1)).unwrap();
    assert!(Checkpoint::open(path).is_ok());
    let config = fs::read_to_string(path.join("config.json")).unwrap();
    fs::write(path.join("config.json"), config.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1")).unwrap();
    assert!(
        refused().contains("model.layers.1.input_layernorm.weight is not part of the model") && refused().contains("and 4 more"),
        "{}",
        refused()
    );
    fs::write(path.join("config.json"), config.replace("\"intermediate_size\": 36", "\"intermediate_size\": 40")).unwrap();
    assert!(refused().contains("model.layers.0.mlp.gate_proj.weight has shape [36, 24], config.json asks for [40, 24]"), "{}", refused());
    fs::write(path.join("config.json"), config).unwrap();

    let bytes = fs::read(path.join("model.safetensors")).unwrap();
    fs::write(path.join("model.safetensors"), &bytes[..bytes.len() - 1]).unwrap();
    assert!(refused().contains("cut short"), "{}", refused());
    fs::write(path.join("model.safetensors"), b"version https://git-lfs.github.com/spec/v1").unwrap();
    assert!(refused().contains("expected a safetensors file, found a Git LFS pointer"), "{}", refused());
    fs::write(path.join("model.safetensors"), b"").unwrap();
    assert!(refused().contains("found 0 bytes"), "{}", refused());
    fs::remove_file(path.join("tokenizer.json")).unwrap();
    assert!(refused().contains("tokenizer.json: cannot read"), "{}", refused());
}

#[test]
fn half_precision_shards_load_as_f32() {
    let (folder, checkpoint) = blank(true);
    let model = checkpoint.init(&device(), 1);
    checkpoint.save(folder.path(), &model).unwrap();
    let bytes = fs::read(folder.path().join("model.safetensors")).unwrap();
    let header_bytes = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + header_bytes]).unwrap();
    let mut weight_map = serde_json::Map::new();
    for (shard, (name, entry)) in header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__").enumerate() {
        let at = |index: usize| entry["data_offsets"][index].as_u64().unwrap() as usize + 8 + header_bytes;
        // The upper half of an f32 is a bf16.
        let halves: Vec<u8> = bytes[at(0)..at(1)].chunks(4).flat_map(|word| [word[2], word[3]]).collect();
        let mut header = serde_json::Map::new();
        header.insert(name.clone(), json!({"dtype": "BF16", "shape": entry["shape"], "data_offsets": [0, halves.len()]}));
        let header = Value::Object(header).to_string();
        let file = format!("model-{shard}.safetensors");
        fs::write(folder.path().join(&file), [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &halves].concat()).unwrap();
        weight_map.insert(name.clone(), json!(file));
    }
    fs::write(folder.path().join("model.safetensors.index.json"), json!({"weight_map": weight_map}).to_string()).unwrap();
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let halved = Checkpoint::open(folder.path()).unwrap().load(&device()).unwrap();
    let exact = values(model.model.layers[1].self_attn.o_proj.weight.val());
    let halved = values(halved.model.layers[1].self_attn.o_proj.weight.val());
    let cut: Vec<f32> = exact.iter().map(|value| f32::from_bits(value.to_bits() & 0xffff_0000)).collect();
    assert_eq!(halved, cut);
}

#[test]
fn tokenizing_a_pair_keeps_the_prompt_apart() {
    let (_folder, checkpoint) = blank(true);
    let tokenizer = &checkpoint.tokenizer;
    // The file asks for truncation to 3 tokens. We ignore it.
    assert_eq!(tokenizer.encode("abcd", SpecialTokens::Added).unwrap(), [1, 4, 5, 6, 7]);
    assert_eq!(tokenizer.encode("<s>ab", SpecialTokens::Written).unwrap(), [1, 4, 5]);
    let pair = tokenizer.encode_pair("ab", "ab c", SpecialTokens::Opening).unwrap();
    assert_eq!((pair.token_ids, pair.prompt_token_count), (vec![1, 4, 5, 3, 6], 3));
    assert_eq!(tokenizer.decode(&[4, 3, 5, 2]).unwrap(), "a b");
    assert_eq!(tokenizer.token_id("</s>"), Some(2));
    assert!(tokenizer.decode(&[-1]).is_err());
    assert!(tokenizer.encode("", SpecialTokens::Written).unwrap_err().to_string().contains("at least one token"));
}

#[test]
fn a_response_that_melts_into_the_prompt_is_an_error() {
    let Some(folder) = real("stories260K") else { return };
    let tokenizer = Checkpoint::open(&folder).unwrap().tokenizer;
    assert_eq!(tokenizer.encode("Once upon a time", SpecialTokens::Added).unwrap(), [1, 403, 407, 261, 378]);
    assert!(tokenizer.encode_pair("Once upon a time", "Once upon a time, there was", SpecialTokens::Opening).is_ok());
    let error = tokenizer.encode_pair("Once upon a ti", "Once upon a time", SpecialTokens::Opening).unwrap_err().to_string();
    assert!(error.contains("not the first ones") && error.contains("they part after"), "{error}");
}

#[test]
fn chat_templates_write_the_prompt() {
    let source = "{% for message in messages %}\n\
                  {% if message['role'] not in ['system', 'user', 'assistant'] %}\n\
                  {{ raise_exception('unknown role ' + message.role) }}\n\
                  {% endif %}\n\
                  <|{{ message.role }}|>\n{{ message['content'].strip() + eos_token }}\n\
                  {% endfor %}\n\
                  {% if add_generation_prompt %}<|assistant|>\n{% endif %}";
    let template = ChatTemplate::new(source, &[("eos_token", "</s>")]).unwrap();
    let message = |role: &str, content: &str| Message::new(role, content);
    let text = template.render(&[message("system", "Be kind."), message("user", " Hi ")], true).unwrap();
    assert_eq!(text, "<|system|>\nBe kind.</s>\n<|user|>\nHi</s>\n<|assistant|>\n");
    let error = template.render(&[message("dog", "woof")], true).unwrap_err().to_string();
    assert!(error.contains("unknown role dog"), "{error}");
    assert!(ChatTemplate::new("{% for %}", &[]).is_err());

    let (folder, checkpoint) = blank(true);
    assert!(checkpoint.chat_template.is_none());
    let settings = json!({"chat_template": [{"name": "default", "template": "{{ bos_token }}{{ messages[0].content }}"}], "bos_token": {"content": "<s>"}});
    fs::write(folder.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
    let checkpoint = Checkpoint::open_blank(folder.path()).unwrap();
    assert_eq!(checkpoint.chat_template.as_ref().unwrap().render(&[message("user", "abc")], true).unwrap(), "<s>abc");
    fs::write(folder.path().join("chat_template.jinja"), "{{ messages[0].content | upper }}").unwrap();
    let checkpoint = Checkpoint::open_blank(folder.path()).unwrap();
    assert_eq!(checkpoint.chat_template.as_ref().unwrap().render(&[message("user", "abc")], true).unwrap(), "ABC");
}

#[test]
fn devices_have_names() {
    assert_eq!("cpu".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cpu);
    assert!("tpu".parse::<DeviceChoice>().unwrap_err().to_string().contains("expected auto, cpu or cuda, found \"tpu\""));
    assert!(DeviceChoice::Auto.resolve().is_ok());
    if !cfg!(feature = "cuda") {
        assert!(DeviceChoice::Cuda.resolve().unwrap_err().to_string().contains("--features cuda"));
    }
}

/// Saves models for `tests/python/export_parity.py` into the folder of `OPTUNE_EXPORT_DIR`.
#[test]
fn models_are_exported() {
    let Some(folder) = export_folder() else { return };
    let export = |name: &str, checkpoint: &Checkpoint, model: &CausalLm, text: Option<&str>| {
        let folder = Path::new(&folder).join(name);
        checkpoint.save(&folder, model).unwrap();
        let token_ids: Vec<i32> = (1..30).collect();
        let logits = all_logits(model, &token_ids);
        let logits: Vec<&[f32]> = logits.chunks(checkpoint.config.vocab_size).collect();
        let mut parity = json!({"token_ids": token_ids, "logits": logits});
        if let Some(text) = text {
            parity["text"] = json!(text);
            parity["text_ids"] = json!(checkpoint.tokenizer.encode(text, SpecialTokens::Added).unwrap());
        }
        fs::write(folder.join("parity.json"), parity.to_string()).unwrap();
    };
    for (name, tied) in [("tied", true), ("untied", false)] {
        let (_folder, checkpoint) = blank(tied);
        export(name, &checkpoint, &checkpoint.init(&device(), 23), None);
    }
    if let Some(stories) = real("stories260K") {
        let checkpoint = Checkpoint::open(&stories).unwrap();
        export("stories", &checkpoint, &checkpoint.load(&device()).unwrap(), Some("Once upon a time,  there was a dog."));
    }
}
