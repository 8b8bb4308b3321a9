//! The example that shows how to embed the library compiles, and does what it says.

use crate::common;

#[path = "../../examples/embed.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod embed;

#[test]
fn the_example_continues_a_prompt() {
    let folder = common::fixture("mamba-hf");
    let golden = std::fs::read(folder.join("golden.safetensors")).unwrap();
    let golden = safetensors::SafeTensors::deserialize(&golden).unwrap();
    let ids = |name| -> Vec<u32> {
        let data = golden.tensor(name).unwrap().data().as_chunks().0.to_vec();
        data.into_iter().map(|b| i64::from_le_bytes(b) as u32).collect()
    };
    let tokens = embed::continue_prompt(&folder, &ids("greedy.prompt"), 12).unwrap();
    assert_eq!(tokens, ids("greedy.tokens"));
    let error = embed::continue_prompt("no/such/folder".as_ref(), &[1], 1).unwrap_err();
    assert!(error.to_string().starts_with("no/such/folder/config.json"), "{error}");
}
