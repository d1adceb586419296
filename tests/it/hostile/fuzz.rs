//! Fuzzing, the short way: every target of `fuzz/` over its seeds, over all earlier findings, and
//! over mutations of both. No input panics, takes seconds, or memory out of proportion.
//! `OPTUNE_FUZZ=n` tries n mutations of each target.
//!
//! Each target has a process of its own: a stack overflow ends one, and memory is that of the
//! process.

#[path = "../../../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use arrow::ipc::writer::{FileWriter, StreamWriter};
use optune::tables::prompts;

use self::targets::TARGETS;
use crate::fixtures::pipeline_folder::broken_files;
use crate::fixtures::rows::{Draw, prompt_rows};

/// The limit of CPU time, and of elapsed time for input that only waits: others may use the CPU too.
const LONGEST: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const MOST_BYTES: u64 = 1 << 30;
/// As long as inputs become.
const MOST_INPUT_BYTES: usize = 1 << 18;

/// Pieces that break readers: numbers at the ends of their types, brackets, ends of texts.
const PIECES: [&str; 40] = [
    "18446744073709551615",
    "9223372036854775808",
    "-1",
    "0",
    "1e999",
    "1152921504606846976",
    "4294967296",
    "NaN",
    "null",
    "true",
    "\"\"",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "'",
    "\\",
    "\n",
    "\r\n",
    "\0",
    "\t",
    "  ",
    "- ",
    "&a ",
    "*a",
    "!!int ",
    "${x}",
    "[t-1]",
    "../",
    "/",
    "{{",
    "}}",
    "{%",
    "%}",
    "\u{feff}",
    "é",
    "🙂",
];

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    files
}

/// The seeds and findings of a target, each with its name.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![format!("fuzz/seeds/{target}"), format!("fuzz/regressions/{target}")];
    let mut broken = Vec::new();
    if target == "pipeline" {
        folders.push("pipelines".to_string());
        broken = broken_files();
    }
    let found = folders.iter().flat_map(|folder| files(&root.join(folder))).chain(broken);
    let found = found.map(|path| (path.strip_prefix(root).unwrap().display().to_string(), fs::read(&path).unwrap()));
    found.chain(if target == "import" { arrow() } else { Vec::new() }).collect()
}

/// Tables as Arrow writes them, a file and a stream.
fn arrow() -> Vec<(String, Vec<u8>)> {
    let rows = prompts::batch(&prompt_rows(&mut Draw(1), 5));
    let mut file = FileWriter::try_new(b"arrow prompts\n".to_vec(), &rows.schema()).unwrap();
    let mut stream = StreamWriter::try_new(b"arrow query\n".to_vec(), &rows.schema()).unwrap();
    file.write(&rows).unwrap();
    stream.write(&rows).unwrap();
    vec![("an Arrow file".to_string(), file.into_inner().unwrap()), ("an Arrow stream".to_string(), stream.into_inner().unwrap())]
}

/// One to four changes of an input, some of them by pieces of another.
fn mutated(draw: &mut Draw, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    let place = |draw: &mut Draw, length: usize| draw.below(length as i32 + 1) as usize;
    for _ in 0..=draw.below(4) {
        let (start, longest, most) = (place(draw, bytes.len()), [8, 200][draw.below(2) as usize], [9, 9, 9, 3000][draw.below(4) as usize]);
        let length = 1 + draw.below(longest) as usize;
        let end = (start + length).min(bytes.len());
        match draw.below(8) {
            0 if start < bytes.len() => bytes[start] ^= 1 << draw.below(8),
            1 => drop(bytes.drain(start..end)),
            2 => drop(bytes.splice(start..end, PIECES[draw.below(PIECES.len() as i32) as usize].bytes())),
            3 => drop(bytes.splice(start..start, PIECES[draw.below(PIECES.len() as i32) as usize].bytes())),
            // The same again and again: depth, and length.
            4 => {
                let again = bytes[start..end].repeat(1 + draw.below(most) as usize);
                bytes.splice(start..start, again);
            }
            5 => {
                let from = place(draw, other.len());
                bytes.splice(start..end, other[from..(from + length).min(other.len())].iter().copied());
            }
            6 => {
                let to = place(draw, bytes.len());
                let moved: Vec<u8> = bytes[start..end].to_vec();
                bytes.splice(to..to, moved);
            }
            _ => bytes.truncate(start.max(bytes.len() / 2)),
        }
    }
    bytes.truncate(MOST_INPUT_BYTES);
    bytes
}

/// The memory of this process, where the system tells it.
fn resident_bytes() -> Option<u64> {
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

/// The CPU time of this process, where the system tells it; else the elapsed time.
fn processor_time() -> Duration {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the program's name in brackets: user and system time are the 12th and 13th, in
    // hundredths of a second.
    let numbers: Vec<u64> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().map(|word| word.parse().unwrap_or(0)).collect();
    match numbers.get(11..13) {
        Some(times) => Duration::from_millis(10 * times.iter().sum::<u64>()),
        None => BEGAN.elapsed(),
    }
}

/// Runs the target of `OPTUNE_FUZZ_TARGET`. The input in hand is in the working directory, for a
/// look after a crash.
#[test]
#[ignore = "is a process of `no_input_panics_hangs_or_takes_all_memory`"]
fn one_target() {
    static BEGAN: Mutex<Option<(Instant, Duration)>> = Mutex::new(None);
    let name = std::env::var("OPTUNE_FUZZ_TARGET").unwrap();
    let (_, target) = TARGETS.into_iter().find(|(target, _)| *target == name).unwrap();
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_millis(20));
            let began = *BEGAN.lock().unwrap();
            if began.is_some_and(|(began, used)| began.elapsed() > LONGEST_WAIT || processor_time().saturating_sub(used) > LONGEST) {
                eprintln!("takes more than {LONGEST:?}");
                std::process::exit(3);
            }
            if resident_bytes().is_some_and(|bytes| bytes > MOST_BYTES) {
                eprintln!("takes more than {MOST_BYTES} bytes of memory");
                std::process::exit(4);
            }
        }
    });
    let run = |input: &[u8]| {
        fs::write("input", input).unwrap();
        *BEGAN.lock().unwrap() = Some((Instant::now(), processor_time()));
        target(input);
        *BEGAN.lock().unwrap() = None;
    };
    let seeds = seeds(&name);
    assert!(seeds.len() > 3, "{name} has only {} seeds", seeds.len());
    for (seed, input) in &seeds {
        fs::write("name", seed).unwrap();
        run(input);
    }
    let count: u64 = std::env::var("OPTUNE_FUZZ").map_or(3000, |count| count.parse().unwrap());
    // Slow seeds would take long again and again.
    let quick: Vec<_> = seeds.iter().filter(|(name, _)| !name.contains("/lie-")).collect();
    let first: u64 = std::env::var("OPTUNE_SEED").map_or(0, |seed| seed.parse().unwrap());
    for number in first..first + count {
        let mut draw = Draw(number);
        let [input, other] = [0, 1].map(|_| quick[draw.below(quick.len() as i32) as usize]);
        fs::write("name", format!("mutation {number} of {}", input.0)).unwrap();
        run(&mutated(&mut draw, &input.1, &other.1));
    }
    println!("{} seeds and {count} mutations", seeds.len());
}

#[test]
fn no_input_panics_hangs_or_takes_all_memory() {
    let only = std::env::var("OPTUNE_FUZZ_ONLY").ok();
    for (name, _) in TARGETS.into_iter().filter(|(name, _)| only.as_ref().is_none_or(|only| only == name)) {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["hostile::fuzz::one_target", "--exact", "--ignored", "--nocapture"]).current_dir(folder.path());
        let output = child.env("OPTUNE_FUZZ_TARGET", name).env("TMPDIR", folder.path()).output().unwrap();
        if !output.status.success() {
            let input = fs::read(folder.path().join("input")).unwrap_or_default();
            let kept = std::env::temp_dir().join(format!("optune-{name}-{}", &blake3::hash(&input).to_hex()[..12]));
            fs::write(&kept, input).unwrap();
            let what = fs::read_to_string(folder.path().join("name")).unwrap_or_default();
            let said = String::from_utf8_lossy(&output.stderr);
            panic!("target {name}, {what}: {}; the input is {}, for fuzz/regressions/{name}\n{said}", output.status, kept.display());
        }
        eprint!("{name}: {}", String::from_utf8_lossy(&output.stdout).lines().find(|line| line.contains("mutations")).unwrap_or_default());
    }
}
