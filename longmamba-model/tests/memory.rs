//! The peak memory of a long prompt is that of a short one.
#![cfg(all(feature = "cli", target_os = "linux"))]

use std::process::Command;

/// Runs the command on a prompt of `len` bytes; returns its peak memory in bytes.
fn peak(model: &str, len: usize) -> u64 {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text: Vec<u8> = b"It was a bright cold day, and nobody counted the bytes. "
        .iter()
        .copied()
        .cycle()
        .take(len)
        .collect();
    std::fs::write(file.path(), text).unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_longmamba"))
        .args(["generate", model, "--max-new", "1", "--json", "--threads", "2", "--prompt-file"])
        .arg(file.path())
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let json: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(json["prompt_tokens"], len);
    json["peak_memory_bytes"].as_u64().unwrap()
}

#[test]
fn a_million_tokens_take_the_memory_of_ten_thousand() {
    for model in ["builtin:mamba2-tiny", "builtin:mamba1-tiny"] {
        let (short, long) = (peak(model, 10_000), peak(model, 1_000_000));
        println!("{model}: {short} bytes for 10,000 tokens, {long} for 1,000,000");
        assert!(long as f64 <= 1.1 * short as f64, "{model}: {long} against {short}");
    }
}
