use super::*;
use crate::hub::find_in;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub on this machine with one model, `org/tiny`, that speaks as much of the protocol as hf-hub asks for.
struct Hub {
    address: String,
    /// Paths asked for, and from which byte on; a question about a file's size is not one.
    asked: Arc<Mutex<Vec<(String, usize)>>>,
    /// The next answers stop after so many bytes of a file.
    cut: Arc<AtomicUsize>,
}

impl Hub {
    fn with(files: &[(&str, &str)]) -> Self {
        let files: Arc<BTreeMap<String, Vec<u8>>> = Arc::new(
            files.iter().map(|(name, text)| (name.to_string(), text.as_bytes().to_vec())).collect(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hub = Hub {
            address: format!("http://{}", listener.local_addr().unwrap()),
            asked: Arc::default(),
            cut: Arc::new(AtomicUsize::new(usize::MAX)),
        };
        let (asked, cut) = (hub.asked.clone(), hub.cut.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that hangs up is no concern of the hub's.
                let _ = answer(stream, &files, &asked, cut.load(Ordering::SeqCst));
            }
        });
        hub
    }

    fn source(&self, cache: &Path) -> Source {
        Source { cache: cache.to_owned(), endpoint: Some(self.address.clone()), token: None }
    }

    fn asked(&self) -> Vec<(String, usize)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn answer(
    mut stream: TcpStream,
    files: &BTreeMap<String, Vec<u8>>,
    asked: &Mutex<Vec<(String, usize)>>,
    cut: usize,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut range = String::new();
    for line in lines.map_while(std::result::Result::ok).take_while(|line| !line.is_empty()) {
        if let Some(value) = line.to_lowercase().strip_prefix("range: bytes=") {
            range = value.to_owned();
        }
    }
    let revision = format!(
        "/api/models/org/tiny/revision/{}",
        if path.ends_with(COMMIT) { COMMIT } else { "main" }
    );
    if path == revision {
        let list: Vec<_> =
            files.keys().map(|name| format!(r#"{{"rfilename": "{name}"}}"#)).collect();
        let body = format!(r#"{{"sha": "{COMMIT}", "siblings": [{}]}}"#, list.join(", "));
        return write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    }
    let name = path.strip_prefix(&format!("/org/tiny/resolve/{COMMIT}/")).unwrap_or_default();
    let Some(bytes) = files.get(name) else {
        return stream.write_all(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
    };
    let (from, to) = range.split_once('-').unwrap_or(("0", ""));
    let from: usize = from.parse().unwrap_or(0);
    let to = to.parse().unwrap_or(bytes.len() - 1);
    if range != "0-0" {
        asked.lock().unwrap().push((name.to_owned(), from));
    }
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{to}/{}\r\n\
         ETag: \"{name}-etag\"\r\nX-Repo-Commit: {COMMIT}\r\nConnection: close\r\n\r\n",
        to + 1 - from,
        bytes.len(),
    )?;
    let end = (to + 1).min(if range == "0-0" { usize::MAX } else { cut }).max(from);
    stream.write_all(&bytes[from..end])
}

fn id(text: &str) -> ModelId {
    ModelId::parse(text).unwrap()
}

#[test]
fn a_model_comes_into_the_cache_and_is_found_there() {
    let hub = Hub::with(&[
        ("config.json", "{}"),
        ("model.safetensors", "weights"),
        ("pytorch_model.bin", "the same, pickled"),
        ("tokenizer.json", "{ }"),
        ("training.log", "not wanted"),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    let mut note = |p: Progress<'_>| seen.push((p.file.to_owned(), p.done, p.total));
    let folder = hub.source(cache.path()).fetch(&id("org/tiny"), &mut note).unwrap();
    assert_eq!(folder, cache.path().join("models--org--tiny/snapshots").join(COMMIT));
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), b"weights");
    assert!(seen.contains(&("model.safetensors".to_owned(), 7, 7)), "{seen:?}");
    let names: Vec<_> = hub.asked().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["config.json", "tokenizer.json", "model.safetensors"]);
    assert_eq!(find_in(cache.path(), "org/tiny").unwrap(), folder);
    let refs: Vec<_> =
        fs::read_dir(cache.path().join("models--org--tiny/refs")).unwrap().flatten().collect();
    assert_eq!(refs.len(), 1, "{refs:?}");

    hub.source(cache.path()).fetch(&id("org/tiny"), &mut |_| ()).unwrap();
    hub.source(cache.path()).fetch(&id(&format!("org/tiny@{COMMIT}")), &mut |_| ()).unwrap();
    assert_eq!(hub.asked(), [], "what is here is not fetched again");
}

#[test]
fn a_download_that_was_cut_short_goes_on_where_it_stopped() {
    let weights = "0123456789".repeat(1000);
    let hub = Hub::with(&[("config.json", "{}"), ("model.safetensors", &weights)]);
    let cache = tempfile::tempdir().unwrap();
    hub.cut.store(4000, Ordering::SeqCst);
    let error = hub.source(cache.path()).fetch(&id("org/tiny"), &mut |_| ()).unwrap_err();
    assert!(
        matches!(&error, Error::Download { file, .. } if file == "model.safetensors"),
        "{error}"
    );
    assert!(find_in(cache.path(), "org/tiny").is_err(), "half a model is not found");

    hub.asked();
    hub.cut.store(usize::MAX, Ordering::SeqCst);
    let mut least = u64::MAX;
    let mut note = |p: Progress<'_>| least = least.min(p.done);
    let folder = hub.source(cache.path()).fetch(&id("org/tiny"), &mut note).unwrap();
    assert_eq!(fs::read_to_string(folder.join("model.safetensors")).unwrap(), weights);
    assert_eq!(hub.asked(), [("model.safetensors".to_owned(), 4000)]);
    assert_eq!(least, 4000);
}

#[test]
fn shards_come_by_their_index() {
    let index = r#"{"metadata": {}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors",
        "c": "model-1.safetensors"}}"#;
    let hub = Hub::with(&[
        ("config.json", "{}"),
        ("model.safetensors.index.json", index),
        ("model-1.safetensors", "one"),
        ("model-2.safetensors", "two"),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let folder = hub.source(cache.path()).fetch(&id("org/tiny"), &mut |_| ()).unwrap();
    assert_eq!(fs::read(folder.join("model-1.safetensors")).unwrap(), b"one");
    assert_eq!(fs::read(folder.join("model-2.safetensors")).unwrap(), b"two");
}

#[test]
fn an_index_cannot_name_a_file_elsewhere() {
    for name in ["../../../../x", "/etc/passwd", "a/b", ""] {
        let index = format!(r#"{{"weight_map": {{"a": "{name}"}}}}"#);
        let hub = Hub::with(&[("config.json", "{}"), ("pytorch_model.bin.index.json", &index)]);
        let cache = tempfile::tempdir().unwrap();
        let error = hub.source(cache.path()).fetch(&id("org/tiny"), &mut |_| ()).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{name:?}: {error}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let hub = Hub::with(&[("config.json", "{}"), ("readme", "nothing else")]);
    let cache = tempfile::tempdir().unwrap();
    let error = |model: &str| {
        hub.source(cache.path()).fetch(&id(model), &mut |_| ()).unwrap_err().to_string()
    };
    assert!(error("org/tiny").contains("none of model.safetensors"), "{}", error("org/tiny"));
    assert!(
        error("org/other").contains("org/other: cannot download the list of files"),
        "{}",
        error("org/other")
    );
}
