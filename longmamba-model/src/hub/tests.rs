use super::*;
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A cache as Hugging Face's own library leaves it: files are links into `blobs`.
fn cache_with(id: &str, refs: &[(&str, &str)], commits: &[&str]) -> TempDir {
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().join(format!("models--{}", id.replace('/', "--")));
    fs::create_dir_all(folder.join("blobs")).unwrap();
    fs::create_dir_all(folder.join("refs")).unwrap();
    fs::write(folder.join("blobs/1f"), "{}").unwrap();
    for (name, commit) in refs {
        let file = folder.join("refs").join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, commit).unwrap();
    }
    for commit in commits {
        let snapshot = folder.join("snapshots").join(commit);
        fs::create_dir_all(&snapshot).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("../../blobs/1f", snapshot.join("config.json")).unwrap();
        #[cfg(not(unix))]
        fs::copy(folder.join("blobs/1f"), snapshot.join("config.json")).unwrap();
    }
    cache
}

fn snapshot(cache: &TempDir, folder: &str, commit: &str) -> PathBuf {
    cache.path().join(folder).join("snapshots").join(commit)
}

fn message(result: Result<PathBuf>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_branch_a_tag_and_a_commit_are_found() {
    let other = "89abcdef0123456789abcdef0123456789abcdef";
    let refs = [("main", &*format!("{COMMIT}\n")), ("refs/pr/1", other), ("v1.0", other)];
    let cache = cache_with("org/tiny.model-1", &refs, &[COMMIT, other]);
    let expected = |commit| snapshot(&cache, "models--org--tiny.model-1", commit);
    let cases = [
        ("", COMMIT),
        ("@main", COMMIT),
        ("@v1.0", other),
        ("@refs/pr/1", other),
        (&format!("@{other}"), other),
        (&format!("@{COMMIT}"), COMMIT),
    ];
    for (revision, commit) in cases {
        let found = find_in(cache.path(), &format!("org/tiny.model-1{revision}")).unwrap();
        assert_eq!(found, expected(commit), "{revision}");
        assert!(found.join("config.json").is_file());
    }
}

#[test]
fn an_id_without_an_organisation_is_found() {
    let cache = cache_with("gpt2", &[("main", COMMIT)], &[COMMIT]);
    assert_eq!(find_in(cache.path(), "gpt2").unwrap(), snapshot(&cache, "models--gpt2", COMMIT));
}

#[test]
fn what_is_not_cached_says_where_it_was_looked_for_and_how_to_fetch_it() {
    let cache = tempfile::tempdir().unwrap();
    let text = message(find_in(cache.path(), "org/none@dev"));
    let folder = cache.path().join("models--org--none");
    for part in [folder.to_str().unwrap(), "org/none", "`hf download org/none --revision dev`"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn an_unknown_revision_names_the_file_and_a_cached_commit() {
    let cache = cache_with("org/tiny", &[], &[COMMIT]);
    let text = message(find_in(cache.path(), "org/tiny"));
    let file = cache.path().join("models--org--tiny/refs/main");
    assert!(text.contains(file.to_str().unwrap()), "{text}");
    assert!(text.contains(&format!("org/tiny@{COMMIT}")), "{text}");
    // A branch below a name that is a branch, and the folder of a branch's name.
    let cache = cache_with("org/tiny", &[("main", COMMIT), ("a/b", COMMIT)], &[COMMIT]);
    for id in ["org/tiny@main/x", "org/tiny@a"] {
        let error = find_in(cache.path(), id).unwrap_err();
        assert!(matches!(error, Error::ModelNotFound { .. }), "{error}");
    }
}

#[test]
fn an_incomplete_snapshot_is_not_found() {
    let cache = cache_with("org/tiny", &[("main", COMMIT)], &[]);
    assert!(message(find_in(cache.path(), "org/tiny")).contains("config.json"));
    let cache = cache_with("org/tiny", &[("main", COMMIT)], &[COMMIT]);
    // The link stays, its blob is gone.
    fs::remove_file(cache.path().join("models--org--tiny/blobs/1f")).unwrap();
    #[cfg(unix)]
    assert!(message(find_in(cache.path(), "org/tiny")).contains("config.json"));
}

#[test]
fn a_reference_that_leads_out_of_the_cache_is_malformed() {
    for text in ["../../../etc", "", "main", "0123/../456789"] {
        let cache = cache_with("org/tiny", &[("main", text)], &[COMMIT]);
        let error = find_in(cache.path(), "org/tiny").unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{text:?}: {error}");
    }
}

#[test]
fn ids_are_checked() {
    let cache = tempfile::tempdir().unwrap();
    let faulty = [
        "",
        "a/b/c",
        "a//b",
        "a/",
        "a b/c",
        "org/a..b",
        "org/..",
        "-org/a",
        "org/a-",
        "org/a--b",
        "org/.a",
        "org/a\0b",
        "org/é",
        "org/a@",
        "org/a@../x",
        "org/a@x//y",
        "org/a@/x",
        "org/a@x y",
        "org/a@.git",
        "@main",
        "org/a@b@c",
        "C:/models",
    ];
    for id in faulty {
        let error = find_in(cache.path(), id).unwrap_err();
        let fits = matches!(error, Error::ModelId { .. })
            || (id.ends_with('/') && matches!(error, Error::ModelNotFound { .. }));
        assert!(fits, "{id:?}: {error:?}");
    }
}

#[test]
fn an_existing_path_goes_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for name in ["config.json", "tokenizer.json", "model.safetensors", "pytorch_model.bin"] {
        fs::write(path(name), "").unwrap();
    }
    let cache = Path::new("no such cache");
    let root = folder.path();
    assert_eq!(find_in(cache, root.to_str().unwrap()).unwrap(), root);
    assert_eq!(find_in(cache, &path("config.json")).unwrap(), root);
    for weights in ["model.safetensors", "pytorch_model.bin"] {
        assert_eq!(find_in(cache, &path(weights)).unwrap(), root.join(weights));
    }
    // The folder of a file in the current folder.
    assert_eq!(find_in(cache, "Cargo.toml").unwrap(), Path::new("."));
}

#[test]
fn a_missing_path_is_not_taken_for_an_id() {
    let cache = tempfile::tempdir().unwrap();
    for path in [
        "/no/such",
        "./no",
        "../no",
        "~/no",
        "no/",
        "a\\b",
        "org/x.safetensors",
        "x/config.json",
        "w.bin",
    ] {
        match find_in(cache.path(), path).unwrap_err() {
            Error::ModelNotFound { looked, .. } => assert_eq!(looked, [PathBuf::from(path)]),
            error => panic!("{path}: {error}"),
        }
    }
}

#[test]
fn variables_place_the_cache() {
    let some = |text: &str| Some(OsString::from(text));
    let mut environment = Environment { home: Some("/home/x".into()), ..Default::default() };
    let cache = |environment: &Environment| environment.cache().unwrap();
    assert_eq!(cache(&environment), Path::new("/home/x/.cache/huggingface/hub"));
    environment.xdg_cache_home = some("/caches");
    assert_eq!(cache(&environment), Path::new("/caches/huggingface/hub"));
    environment.hf_home = some("/hf");
    assert_eq!(cache(&environment), Path::new("/hf/hub"));
    environment.hub_cache = some("/models");
    assert_eq!(cache(&environment), Path::new("/models"));
    assert_eq!(Environment::default().cache(), None);
}
