//! Files with lies: about lengths, shapes, sizes and places, and small files of endless meaning.
//! Each is refused with its reason, within seconds, and before memory is allocated for its claims.
//! The same files are seeds in `fuzz/`, where memory is measured.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use optune::model::{ChatTemplate, Checkpoint, Message, ModelConfig};
use optune::pipeline::Pipeline;
use optune::sql::Session;
use optune::store::OutputKey;
use serde_json::{Value, json};

use crate::fixtures::import::{Use, folder, imported};
use crate::fixtures::models::{blank, blank_checkpoint};
use crate::fixtures::store::{Space, make_table};
use crate::fixtures::workspace::Workspace;

const PATIENCE: Duration = Duration::from_secs(30);

/// The time limit, with other tests at work beside it. The CPU time of each input is measured in
/// `fuzz.rs`.
fn soon<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = work();
    assert!(began.elapsed() < PATIENCE, "{what}: took {:?}", began.elapsed());
    result
}

fn says(what: &str, error: &str, expected: &str) {
    assert!(error.contains(expected), "{what}: expected {expected:?} in: {error}");
}

#[test]
fn a_config_of_absurd_sizes_is_refused_by_arithmetic() {
    let base = json!({"architectures": ["LlamaForCausalLM"], "vocab_size": 40, "hidden_size": 24, "intermediate_size": 36,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2});
    for (changes, expected) in [
        (json!({"vocab_size": 1_000_000_000_000_000_u64}), "vocab_size is 1000000000000000, expected 1 to 16777216"),
        (json!({"num_hidden_layers": 1_000_000_000}), "num_hidden_layers is 1000000000, expected 1 to 4096"),
        (json!({"num_hidden_layers": 16_777_216}), "num_hidden_layers is 16777216, expected 1 to 4096"),
        (json!({"vocab_size": -1}), "vocab_size: invalid value: integer `-1`"),
        (json!({"vocab_size": 1e300}), "vocab_size: invalid type: floating point"),
        (json!({"num_attention_heads": 0}), "num_attention_heads is 0"),
        (
            json!({"num_attention_heads": 16_777_216, "num_key_value_heads": 16_777_216, "head_dim": 16_777_216, "hidden_size": 16_777_216}),
            "parameters, expected at most",
        ),
        (json!({"hidden_size": 16_777_216, "intermediate_size": 16_777_216, "num_attention_heads": 2}), "parameters, expected at most"),
        (json!({"vocab_size": 16_777_216, "hidden_size": 16_777_216}), "parameters, expected at most 2199023255552"),
        (json!({"head_dim": u64::MAX}), "head_dim is 18446744073709551615"),
        (json!({"max_position_embeddings": u64::MAX}), "max_position_embeddings is"),
        (json!({"layer_types": vec!["full_attention"; 5], "architectures": ["Qwen2ForCausalLM"]}), "layer_types has 5 entries"),
    ] {
        let mut config = base.clone();
        config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let error = soon("config.json", || ModelConfig::from_json(&config).unwrap_err());
        says(&changes.to_string(), &error, expected);
    }
    // A thousand times Llama's 405B is not refused for its sizes.
    assert!(
        ModelConfig::from_json(&json!({"architectures": ["LlamaForCausalLM"], "vocab_size": 128_256, "hidden_size": 16_384,
        "intermediate_size": 53_248, "num_hidden_layers": 126, "num_attention_heads": 128, "num_key_value_heads": 8}))
        .is_ok()
    );
}

/// A safetensors file with this header and as many bytes of values.
fn weights(header: &Value, bytes: usize) -> Vec<u8> {
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; bytes]].concat()
}

#[test]
fn a_safetensors_header_that_lies_is_refused() {
    let (folder, _) = blank(true);
    let tensor = |shape: Value, offsets: [u64; 2]| json!({"dtype": "F32", "shape": shape, "data_offsets": offsets});
    let two = |first: Value, second: Value| json!({"a": first, "b": second});
    let one = |shape: Value, offsets: [u64; 2]| json!({"a": tensor(shape, offsets)});
    for (what, file, expected) in [
        ("a length of 2^60", [&(1_u64 << 60).to_le_bytes()[..], b"{}"].concat(), "its header would be 1152921504606846976 bytes of 10"),
        ("a length of 2^64 - 1", [&u64::MAX.to_le_bytes()[..], b"{}"].concat(), "its header would be 18446744073709551615"),
        ("a length beyond the end", [&3_u64.to_le_bytes()[..], b"{}"].concat(), "its header would be 3 bytes of 10"),
        ("no file at all", vec![1, 2, 3], "found 3 bytes"),
        ("nested headers", [&200_000_u64.to_le_bytes()[..], "[".repeat(200_000).as_bytes()].concat(), "the safetensors header is not JSON"),
        ("a product that overflows", weights(&one(json!([1_u64 << 32, 1_u64 << 32, 4]), [0, 16]), 16), "do not hold shape"),
        ("a shape of 2^63", weights(&one(json!([1_u64 << 63]), [0, 16]), 16), "do not hold shape"),
        ("a negative shape", weights(&one(json!([-1]), [0, 16]), 16), "tensor a: invalid value"),
        ("offsets beyond the end", weights(&one(json!([1_u64 << 40]), [0, 1 << 42]), 16), "or the file is cut short"),
        ("offsets at the end of their type", weights(&one(json!([4]), [u64::MAX - 16, u64::MAX]), 16), "or the file is cut short"),
        ("offsets the wrong way round", weights(&one(json!([4]), [16, 0]), 16), "do not hold shape"),
        (
            "tensors in each other",
            weights(&two(tensor(json!([4]), [0, 16]), tensor(json!([4]), [8, 24])), 24),
            "tensor b: expected its bytes to follow those of a at 16, found 8 to 24",
        ),
        (
            "the same bytes twice",
            weights(&two(tensor(json!([4]), [0, 16]), tensor(json!([4]), [0, 16])), 16),
            "tensor b: expected its bytes to follow",
        ),
        ("a hole", weights(&two(tensor(json!([4]), [0, 16]), tensor(json!([4]), [20, 36])), 36), "found 20 to 36"),
        (
            "bytes of no tensor",
            weights(&one(json!([4]), [0, 16]), 20),
            "expected 20 bytes of values behind the header, found tensors of 16",
        ),
        ("no tensors", weights(&json!({}), 0), "is missing"),
    ] {
        fs::write(folder.path().join("model.safetensors"), file).unwrap();
        let error = soon(what, || Checkpoint::open(folder.path()).unwrap_err().to_string());
        says(what, &error, expected);
        says(what, &error, if what == "no tensors" { "config.json" } else { "model.safetensors" });
    }
}

#[test]
fn an_index_names_files_of_its_own_folder_only() {
    let (folder, _) = blank(true);
    fs::write(folder.path().join("../outside.safetensors"), weights(&json!({}), 0)).ok();
    for name in
        ["../outside.safetensors", "/etc/passwd", "sub/../../outside.safetensors", "..", ".", "", "..\\outside", "C:outside", "a\0b"]
    {
        let index = json!({"metadata": {"total_size": u64::MAX}, "weight_map": {"model.norm.weight": name}});
        fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
        says(name, &error, "expected a file in the same folder");
    }
    fs::remove_file(folder.path().join("../outside.safetensors")).ok();
}

#[test]
fn tokenizers_and_settings_that_are_broken_or_huge_are_refused() {
    let deep = format!("{{\"model\": {}", "[".repeat(300_000));
    for (name, text, expected) in [
        ("tokenizer.json", "{", "tokenizer.json: EOF"),
        (
            "tokenizer.json",
            r#"{"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}"#,
            "tokenizer.json",
        ),
        ("tokenizer.json", &deep, "recursion limit"),
        ("config.json", &deep, "recursion limit"),
        ("tokenizer_config.json", &deep, "recursion limit"),
        ("generation_config.json", r#"{"eos_token_id": [99999999999]}"#, "generation_config.json"),
        ("generation_config.json", r#"{"eos_token_id": -1}"#, "expected a token from 0 to 39"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        blank_checkpoint(folder.path(), true);
        fs::write(folder.path().join(name), text).unwrap();
        let error = soon(name, || Checkpoint::open_blank(folder.path()).unwrap_err().to_string());
        says(name, &error, expected);
    }
    // Files with a large length and no room on the disk.
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"] {
        let (folder, _) = blank(true);
        fs::File::create(folder.path().join(name)).unwrap().set_len(1 << 40).unwrap();
        let error = soon(name, || Checkpoint::open_blank(folder.path()).unwrap_err().to_string());
        says(name, &error, "expected a file of at most 268435456 bytes");
    }
}

#[test]
fn an_adapters_base_is_a_model_directory_or_refused() {
    let (folder, _) = blank(true);
    let adapter = folder.path().join("adapter");
    fs::create_dir(&adapter).unwrap();
    for (base, expected) in [
        (json!("/"), "config.json"),
        (json!("/etc/passwd"), "expected a directory"),
        (json!("adapter"), "which is an adapter too"),
        (json!("../../../../../../nowhere"), "expected a directory"),
        (json!("a\0b"), "expected a directory"),
        (json!("hf://org/name"), "expected a directory"),
        (json!(7), "names no base_model_name_or_path"),
        (json!(null), "names no base_model_name_or_path"),
        (json!("x".repeat(100_000)), "expected a directory"),
    ] {
        fs::write(
            adapter.join("adapter_config.json"),
            json!({"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"], "base_model_name_or_path": base})
                .to_string(),
        )
        .unwrap();
        says(&base.to_string().chars().take(40).collect::<String>(), &Checkpoint::open(&adapter).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_template_without_end_is_stopped() {
    let grown = "{% set ns = namespace(x=['a'], y=['a']) %}{% for i in range(70) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}";
    let text = "{% set ns = namespace(x='x') %}{% for i in range(70) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}";
    let deep = "{% set ns = namespace(x=[]) %}{% for i in range(90000) %}{% set ns.x = [ns.x] %}{% endfor %}done";
    let nested: String = (0..60).map(|i| format!("{{% for x{} in [[x{i}, x{i}]] %}}", i + 1)).collect();
    let nested = format!("{{% set x0 = ['a'] %}}{nested}{{{{ x60 }}}}{}", "{% endfor %}".repeat(60));
    let with: String = (0..60).map(|i| format!("{{% with x{} = [x{i}, x{i}] %}}", i + 1)).collect();
    let with = format!("{{% set x0 = ['a'] %}}{with}{{{{ x60 }}}}{}", "{% endwith %}".repeat(60));
    let (no_end, deep_value, held) =
        ("found no end; it repeats something without bound", "nested more than 64 deep", "a namespace may not be in another");
    let sinks =
        ["{{ ns.x }}", "{{ ns.x == ns.y }}", "{{ ns.x | string }}", "{{ {ns.x: 1} }}", "{{ [ns.x].index(ns.y) }}", "{{ ns.x | tojson }}"];
    let mut cases: Vec<(String, &str)> = sinks.iter().map(|sink| (format!("{grown}{sink}"), no_end)).collect();
    cases.extend(
        [
            ("{{ 'x' * 1000000000 }}", no_end),
            ("{{ [1] * 1000000000 }}", "repeated sequence is too large"),
            ("{{ [1] * 9000000 }}", no_end),
            ("{{ range(1000000000) }}", "range has too many elements"),
            (
                "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}x{% endfor %}{% endfor %}{% endfor %}",
                no_end,
            ),
            ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion limit exceeded"),
            ("{% macro m(a) %}{{ m([a, a]) }}{% endmacro %}{{ m(['a']) }}", ""),
            ("{% for x in [['a']] recursive %}{{ loop([[x, x]]) }}{% endfor %}", ""),
            (text, no_end),
            (deep, deep_value),
            (&nested, no_end),
            (&with, no_end),
            ("{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}", held),
            ("{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns }}", held),
            ("{{ '{:1000000000}'.format(1) }}", "at most 9999 characters wide"),
            ("{{ 'x'.center(1000000000) }}", "at most 10000 characters"),
            ("{{ 'x'.center(9000, 'y' * 9000000) }}", "exactly one character"),
            ("{{ ('x' * 9000000).strip('y' * 9000000) }}", ""),
            ("{{ dict(range(99999) | batch(2)) | length }}", ""),
            ("{{ range(99999) | list | tojson(indent='y' * 9000000) }}", no_end),
            ("{{ ('x' * 100000) | list | join('y' * 9000000) }}", no_end),
        ]
        .map(|(source, expected)| (source.to_string(), expected)),
    );
    let message = Message::new("user", "hi");
    let mut wrong = Vec::new();
    for (source, expected) in cases {
        let what = source.chars().rev().take(60).collect::<Vec<_>>().into_iter().rev().collect::<String>();
        let began = Instant::now();
        let written = ChatTemplate::new(&source, &[]).and_then(|template| template.render(vec![message.clone()], true));
        let taken = began.elapsed();
        let is_right = match &written {
            Err(error) => error.to_string().contains(expected),
            Ok(written) => expected.is_empty() && written.len() < 20_000_000,
        };
        if !is_right || taken > PATIENCE {
            wrong.push(format!("…{what}: {:?} after {taken:?}, expected {expected:?}", written.map(|written| written.len())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_conversation_of_four_megabytes_is_written() {
    let (source, _) = include_str!("../../../fuzz/seeds/template/chatml").split_once("\n===\n").unwrap();
    let messages: Vec<Message> = (0..1000).map(|turn| Message::new(["user", "assistant"][turn % 2], "word ".repeat(800))).collect();
    let written = ChatTemplate::new(source, &[]).unwrap().render(&messages, true).unwrap();
    assert!(written.len() > 4_000_000 && written.ends_with("<|im_start|>assistant\n"), "{} bytes", written.len());
}

#[test]
fn a_template_that_is_nested_or_long_is_compiled_or_refused() {
    let elif = format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}x".repeat(40_000));
    let (attributes, filters, sums) = (
        format!("{{{{ x{} }}}}", ".a".repeat(90_000)),
        format!("{{{{ x{} }}}}", "|trim".repeat(90_000)),
        format!("{{{{ 1{} }}}}", "+1".repeat(90_000)),
    );
    let brackets = format!("{{{{ {}{} }}}}", "[".repeat(90_000), "]".repeat(90_000));
    let blocks = format!("{}{}", "{% if 1 %}".repeat(30_000), "{% endif %}".repeat(30_000));
    for source in [elif, attributes, filters, sums, brackets, blocks, "x".repeat(2 << 20)] {
        let what = source.chars().take(20).collect::<String>();
        let compiled = soon(&what, || ChatTemplate::new(&source, &[]).map(|template| template.render(&[], true).is_ok()));
        compiled.err().into_iter().for_each(|error| says(&what, &error.to_string(), "chat template: "));
    }
}

#[test]
fn nested_and_sparse_rows_are_refused() {
    let folder = folder();
    let deep = format!("{{\"prompt\": \"a\"}}\n{{\"prompt\": {}1{}}}\n", "[".repeat(100_000), "]".repeat(100_000));
    fs::write(folder.path().join("data.jsonl"), deep).unwrap();
    let error = soon("nested", || imported(folder.path(), "table: data.jsonl", Use::Prompts).err().unwrap());
    says(
        "nested",
        &error,
        "data.jsonl:2: expected a JSON object, found none: expected lists and objects at most 100 deep, found deeper ones",
    );
    // Each row has a column of its own: 300 kB would become 400 million nulls.
    let sparse: String = (0..20_000).map(|row| format!("{{\"c{row}\": 1}}\n")).collect();
    fs::write(folder.path().join("data.jsonl"), sparse).unwrap();
    let error = soon("sparse", || imported(folder.path(), "table: data.jsonl", Use::Query).err().unwrap());
    says("sparse", &error, "found 20000 columns and fields in 20000 rows");
}

#[test]
fn a_query_that_is_nested_or_endless_is_refused_or_answered() {
    let session = Session::new().unwrap();
    for query in [
        format!("SELECT 1{}", " + 1".repeat(10_000)),
        format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000)),
        format!("SELECT {}1", "NOT ".repeat(10_000)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(2_000)),
        format!("SELECT CASE WHEN 1 = 1 {} END", "AND 1 = 1 ".repeat(5_000)),
        format!("{}SELECT 1{}", "SELECT * FROM (".repeat(1_000), ")".repeat(1_000)),
    ] {
        let what: String = query.chars().take(30).collect();
        let answer = soon(&what, || session.query(&query));
        answer.err().into_iter().for_each(|error| assert!(!error.to_string().is_empty()));
    }
    if Path::new("/dev/zero").exists() {
        let workspace = Workspace::new();
        workspace.edit("pipeline.yaml", "reward.sql", "/dev/zero");
        let error = Pipeline::load(&workspace.path("pipeline.yaml"), &[]).unwrap().graph(&workspace.path("")).unwrap_err().to_string();
        assert!(error.contains("cannot read the query") || error.contains("/dev/zero"), "{error}");
        let error = soon("a device", || Pipeline::load(Path::new("/dev/zero"), &[]).unwrap_err().to_string());
        says("a device", &error, "expected at most 1048576 bytes, found more");
    }
}

#[test]
fn a_manifest_names_no_file_elsewhere_and_no_part_without_end() {
    let (space, place) = (Space::new(), OutputKey::table("pool", None));
    make_table(&space.lock("run"), &place, 0.5, 9).unwrap();
    let run = space.run("run");
    let path = run.folder().join("manifests/pool.json");
    let written = fs::read_to_string(&path).unwrap();
    let (body, _) = written.split_once(",\n  \"seal\": \"").unwrap();
    for (from, to, expected) in [
        ("\"part-00000.parquet\"", "\"../part-00000.parquet\"", "expected"),
        ("\"part-00000.parquet\"", "\"/etc/passwd\"", "expected"),
        (
            "\"part_count\": 3",
            "\"part_count\": 1152921504606846976",
            "expected at most 16777216 parts, found a part_count of 1152921504606846976",
        ),
        ("\"fingerprint\": \"", "\"fingerprint\": \"../../", "expected a fingerprint of 64 hexadecimal digits"),
        ("\"rows\": 8", "\"rows\": 18446744073709551616", "expected a manifest"),
    ] {
        assert!(body.contains(from), "{from}");
        // With a new checksum: it finds accidents, not lies.
        let body = body.replacen(from, to, 1);
        fs::write(&path, format!("{body},\n  \"seal\": \"{}\"\n}}\n", blake3::hash(body.as_bytes()).to_hex())).unwrap();
        let error = soon(to, || run.manifest(&place).unwrap_err().to_string());
        says(to, &error, expected);
    }
}
