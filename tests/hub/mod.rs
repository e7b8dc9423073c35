//! Models from the hub, against a small hub on loopback: what is asked for, what the cache holds, and what is refused.

mod certificates;
mod transfers;

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use candle_core::{Device, Tensor};
use crag::checkpoint::{Checkpoint, CheckpointError, HubOptions, ModelFiles, ModelSource, locate, write_safetensors};
use tempfile::TempDir;

use crate::common::but_for_views;
use crate::common::hub::{COMMIT, Hub};

const ID: &str = "owner/model";

/// A weight file of so many values.
fn weights(count: u32) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w");
    let values: Vec<f32> = (0..count).map(|i| i as f32).collect();
    let tensor = Tensor::from_vec(values, count as usize, &Device::Cpu).unwrap();
    write_safetensors(&path, &[("w".to_string(), tensor)]).unwrap();
    fs::read(path).unwrap()
}

struct World {
    hub: Hub,
    cache: TempDir,
    weights: Vec<u8>,
}

impl World {
    fn new() -> Self {
        // Large enough to be cut in the middle of its body.
        let weights = weights(100_000);
        let files: [(&str, &[u8]); 5] = [
            ("model.safetensors", &weights),
            ("config.json", b"{\"num_attention_heads\": 12}"),
            ("tokenizer.json", b"{}"),
            ("README.md", b"not needed"),
            ("pytorch_model.bin", b"not needed either"),
        ];
        Self {
            hub: Hub::serving(ID, &files),
            cache: tempfile::tempdir().unwrap(),
            weights,
        }
    }

    fn options(&self) -> HubOptions {
        HubOptions {
            endpoint: Some(self.hub.endpoint()),
            cache_dir: Some(self.cache.path().to_path_buf()),
            ..HubOptions::default()
        }
    }

    fn offline(&self) -> HubOptions {
        HubOptions {
            offline: true,
            ..self.options()
        }
    }

    fn locate(&self) -> Result<ModelFiles, CheckpointError> {
        locate(&source(ID, "main"), &self.options())
    }

    fn refusal(&self) -> String {
        one_line(self.locate().unwrap_err())
    }

    fn set_files(&self, change: impl FnOnce(&mut std::collections::BTreeMap<String, Vec<u8>>)) {
        change(self.hub.settings().repositories.get_mut(ID).unwrap());
    }

    fn assert_whole(&self, files: &ModelFiles) {
        assert_eq!(files.revision.as_deref(), Some(COMMIT));
        assert_eq!(
            files.config.as_ref().unwrap().bytes.as_ref(),
            b"{\"num_attention_heads\": 12}"
        );
        assert!(files.tokenizer_json.is_some() && files.sidecar.is_none() && files.vocab_txt.is_none());
        let checkpoint = Checkpoint::open(files).unwrap();
        let sum = checkpoint
            .tensor("w")
            .unwrap()
            .sum_all()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap();
        assert!((sum / 4_999_950_000.0 - 1.0).abs() < 1e-3, "{sum}");
        let blobs = self.cache.path().join("models--owner--model/blobs");
        for blob in fs::read_dir(blobs).unwrap() {
            let name = blob.unwrap().file_name().into_string().unwrap();
            assert!(!name.contains("incomplete"), "{name}");
        }
    }
}

fn source(id: &str, revision: &str) -> ModelSource {
    ModelSource::parse(id, Some(revision)).unwrap()
}

fn one_line(error: CheckpointError) -> String {
    let message = error.to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

#[test]
fn a_cold_cache_downloads_what_is_needed_and_a_warm_one_asks_once() {
    let world = World::new();
    let files = world.locate().unwrap();
    world.assert_whole(&files);
    assert!(
        files.source.contains("owner/model at main") && files.source.contains(COMMIT),
        "{}",
        files.source
    );
    let requests = world.hub.take_requests();
    assert_eq!(
        requests,
        [
            "GET /api/models/owner/model/revision/main".to_string(),
            format!("GET /owner/model/resolve/{COMMIT}/config.json"),
            format!("GET /owner/model/resolve/{COMMIT}/tokenizer.json"),
            format!("GET /owner/model/resolve/{COMMIT}/model.safetensors"),
            "GET /blobs/model.safetensors".to_string(),
        ]
    );
    world.assert_whole(&world.locate().unwrap());
    assert_eq!(world.hub.take_requests(), ["GET /api/models/owner/model/revision/main"]);
}

/// A command against the world's hub and cache.
fn inspect(world: &World, endpoint: &str, offline: &str) -> std::process::Output {
    let mut command = asking(world, endpoint);
    command.env("HF_HUB_OFFLINE", offline);
    command.args(["inspect", "-q", "--model", ID]).output().unwrap()
}

/// A command that may ask this hub.
fn asking(world: &World, endpoint: &str) -> assert_cmd::Command {
    let mut command = crate::common::crag();
    command
        .env("HF_ENDPOINT", endpoint)
        .env("HF_HUB_CACHE", world.cache.path())
        .env("HF_HUB_OFFLINE", "0");
    command
}

/// A world whose hub has a model that can be used.
fn usable() -> World {
    let world = World::new();
    let files = fixture_files("model/safetensors");
    world.set_files(|served| *served = files.into_iter().collect());
    world
}

#[test]
fn a_cache_that_cannot_be_written_to_serves_what_it_holds() {
    let world = World::new();
    world.locate().unwrap();
    let root = world.cache.path().join("models--owner--model");
    // Permissions do not stop every user, a file in the place of a folder does.
    for folder in [".no_exist", "refs"] {
        fs::remove_dir_all(root.join(folder)).unwrap();
        fs::write(root.join(folder), "").unwrap();
    }
    let files = world.locate().unwrap();
    world.assert_whole(&files);
    assert!(files.warnings.is_empty(), "the hub has said it: {:?}", files.warnings);
}

#[test]
fn a_hub_that_is_away_is_said_where_its_cached_model_is_used() {
    let world = usable();
    let online = inspect(&world, &world.hub.endpoint(), "0");
    assert_eq!((online.status.code(), &*but_for_views(&online.stderr)), (Some(0), ""));
    let away = inspect(&world, &dead_endpoint(), "0");
    let stderr = but_for_views(&away.stderr);
    assert_eq!(away.status.code(), Some(0), "{stderr}");
    for part in [
        "owner/model at main: could not get the list of files from http://127.0.0.1",
        "the copy in the cache is used, of which there may be a newer",
    ] {
        assert!(stderr.contains(part) && stderr.lines().count() == 1, "{part}: {stderr}");
    }
    // Whoever forbids asking knows.
    let offline = inspect(&world, &dead_endpoint(), "1");
    assert_eq!((offline.status.code(), &*but_for_views(&offline.stderr)), (Some(0), ""));
}

#[test]
fn files_that_the_cache_knows_nothing_of_are_named_where_nobody_can_be_asked() {
    let world = usable();
    let online = inspect(&world, &world.hub.endpoint(), "0");
    assert_eq!((online.status.code(), &*but_for_views(&online.stderr)), (Some(0), ""));
    let root = world.cache.path().join("models--owner--model");
    // As a client leaves it that was not asked for this file.
    fs::remove_file(root.join("snapshots").join(COMMIT).join("tokenizer_config.json")).unwrap();
    fs::remove_file(root.join(".no_exist").join(COMMIT).join("crag.json")).unwrap();
    let said = "the cache does not tell whether the repository has crag.json, tokenizer_config.json: if";
    for (endpoint, offline, lines) in [(world.hub.endpoint(), "1", 1), (dead_endpoint(), "0", 2)] {
        let output = inspect(&world, &endpoint, offline);
        let stderr = but_for_views(&output.stderr);
        let own: Vec<&str> = stderr.lines().filter(|line| !line.contains("do_lower_case")).collect();
        assert!(
            output.status.success() && stderr.contains(said) && own.len() == lines,
            "{stderr}"
        );
    }
    let online = inspect(&world, &world.hub.endpoint(), "0");
    assert_eq!((online.status.code(), &*but_for_views(&online.stderr)), (Some(0), ""));
}

#[test]
fn a_link_in_the_cache_that_leads_nowhere_is_an_error_offline_and_mended_online() {
    let world = World::new();
    world.locate().unwrap();
    let snapshot = world.cache.path().join("models--owner--model/snapshots").join(COMMIT);
    for (name, reason) in [
        ("config.json", "config.json: reading it failed: the link leads nowhere"),
        // pytorch_model.bin may be another model.
        ("model.safetensors", "no complete weights"),
    ] {
        fs::remove_file(fs::canonicalize(snapshot.join(name)).unwrap()).unwrap();
        fs::write(snapshot.join("pytorch_model.bin"), "other weights").unwrap();
        let message = one_line(locate(&source(ID, "main"), &world.offline()).unwrap_err());
        assert!(message.contains(reason), "{message}");
        world.assert_whole(&world.locate().unwrap());
    }
}

#[test]
fn a_file_that_the_hub_lists_and_does_not_give_is_an_error_and_not_remembered_as_absent() {
    let world = World::new();
    for name in ["config.json", "model.safetensors"] {
        world.hub.settings().unserved = vec![name.to_owned()];
        let message = world.refusal();
        let expected = format!(
            "could not get {name} from {}: the list of files has it",
            world.hub.endpoint()
        );
        assert!(
            message.contains(&expected) && message.contains("status 404"),
            "{message}"
        );
    }
    assert!(!world.cache.path().join("models--owner--model/.no_exist").exists());
    world.hub.settings().unserved.clear();
    world.assert_whole(&world.locate().unwrap());
}

#[test]
fn a_small_file_that_does_not_end_is_given_up_and_removed() {
    let world = World::new();
    world.hub.settings().endless.push("config.json".into());
    let message = world.refusal();
    assert!(
        message.contains("could not get config.json") && message.contains("larger than 268435456 bytes"),
        "{message}"
    );
    let blobs = fs::read_dir(world.cache.path().join("models--owner--model/blobs")).unwrap();
    assert_eq!(blobs.count(), 0);
}

#[test]
fn older_tokenizer_files_are_downloaded_where_there_are_any() {
    let world = World::new();
    let names = ["added_tokens.json", "special_tokens_map.json"];
    world.set_files(|files| files.extend(names.map(|name| (name.to_owned(), b"{}".to_vec()))));
    let files = world.locate().unwrap();
    assert!(files.added_tokens.is_some() && files.special_tokens_map.is_some());
}

#[test]
fn offline_with_a_warm_cache_makes_no_connection() {
    let world = World::new();
    world.locate().unwrap();
    world.hub.take_requests();
    for revision in ["main", COMMIT] {
        world.assert_whole(&locate(&source(ID, revision), &world.offline()).unwrap());
    }
    let unseen = one_line(locate(&source(ID, "v1"), &world.offline()).unwrap_err());
    assert!(unseen.contains("\"v1\" was never downloaded"), "{unseen}");
    assert!(world.hub.take_requests().is_empty());
}

#[test]
fn a_file_of_the_cache_that_should_hold_a_commit_and_does_not_is_named() {
    let world = World::new();
    world.locate().unwrap();
    let named = world.cache.path().join("models--owner--model/refs/main");
    for contents in [&b""[..], b"\xff\xfe"] {
        fs::write(&named, contents).unwrap();
        let message = one_line(locate(&source(ID, "main"), &world.offline()).unwrap_err());
        let expected = format!(
            "{} should hold the commit of revision \"main\", and holds none",
            named.display()
        );
        assert!(message.contains(&expected), "{message}");
    }
}

#[test]
fn offline_with_a_cold_cache_is_a_clear_error_and_makes_no_connection() {
    let world = World::new();
    for revision in ["main", COMMIT] {
        let message = one_line(locate(&source(ID, revision), &world.offline()).unwrap_err());
        assert!(
            message.contains("owner/model") && message.contains("--offline"),
            "{message}"
        );
        assert!(
            message.contains("HF_HUB_OFFLINE") && message.contains("models--owner--model"),
            "{message}"
        );
    }
    assert!(world.hub.take_requests().is_empty());
    assert_eq!(fs::read_dir(world.cache.path()).unwrap().count(), 0);
}

#[test]
fn a_cached_commit_needs_no_network() {
    let world = World::new();
    world.locate().unwrap();
    world.hub.take_requests();
    let files = locate(&source(ID, COMMIT), &world.options()).unwrap();
    world.assert_whole(&files);
    assert!(world.hub.take_requests().is_empty());
}

#[test]
fn a_commit_cached_in_part_is_completed_or_used_as_it_is_when_the_hub_is_away() {
    let world = World::new();
    locate(&source(ID, COMMIT), &world.options()).unwrap();
    // As if Python had downloaded it, who does not ask for crag.json.
    fs::remove_dir_all(world.cache.path().join("models--owner--model/.no_exist")).unwrap();
    world.hub.take_requests();
    world.assert_whole(&locate(&source(ID, COMMIT), &world.options()).unwrap());
    assert_eq!(world.hub.take_requests().len(), 1);
    world.assert_whole(&locate(&source(ID, COMMIT), &world.options()).unwrap());
    assert!(world.hub.take_requests().is_empty());

    fs::remove_dir_all(world.cache.path().join("models--owner--model/.no_exist")).unwrap();
    let away = HubOptions {
        endpoint: Some(dead_endpoint()),
        ..world.options()
    };
    let files = locate(&source(ID, COMMIT), &away).unwrap();
    assert!(files.source.contains("from the cache"), "{}", files.source);
}

#[test]
fn a_missing_repository_or_revision_is_a_clear_error() {
    let world = World::new();
    for codes in [true, false] {
        world.hub.settings().no_error_codes = !codes;
        let message = one_line(locate(&source("owner/other", "main"), &world.options()).unwrap_err());
        assert!(
            message.contains("owner/other") && message.contains("no such repository"),
            "{message}"
        );
        let message = one_line(locate(&source(ID, "nope"), &world.options()).unwrap_err());
        assert!(
            message.contains("revision") && message.contains("--revision"),
            "{message}"
        );
    }
}

#[test]
fn a_repository_without_weights_says_what_was_looked_for() {
    let world = World::new();
    world.set_files(|files| files.retain(|name, _| !name.ends_with("safetensors") && !name.ends_with("bin")));
    for lists in [true, false] {
        world.hub.settings().no_lists = !lists;
        let message = world.refusal();
        assert!(
            message.contains("model.safetensors") && message.contains("pytorch_model.bin"),
            "{message}"
        );
        assert!(message.contains("owner/model at main"), "{message}");
    }
}

#[test]
fn a_hub_without_file_lists_serves_too() {
    let world = World::new();
    world.hub.settings().no_lists = true;
    world.assert_whole(&world.locate().unwrap());
    world.assert_whole(&locate(&source(ID, "main"), &world.offline()).unwrap());
}

#[test]
fn a_wrong_or_missing_token_is_named_and_never_shown() {
    let world = World::new();
    world.hub.settings().token = Some("hf_right".into());
    let message = world.refusal();
    assert!(
        message.contains("asks for a token") && message.contains("HF_TOKEN"),
        "{message}"
    );
    let with = |token: &str| HubOptions {
        token: Some(token.to_string()),
        ..world.options()
    };
    let message = one_line(locate(&source(ID, "main"), &with("hf_wrong")).unwrap_err());
    assert!(
        message.contains("refuses the token") && message.contains("HF_TOKEN"),
        "{message}"
    );
    assert!(!message.contains("hf_wrong"), "{message}");
    let message = one_line(locate(&source(ID, "main"), &with("hf\r\nX: y")).unwrap_err());
    assert!(message.contains("HF_TOKEN") && !message.contains("X: y"), "{message}");

    let of_file = HubOptions {
        token_source: Some("/h/token".into()),
        ..with("hf\u{feff}")
    };
    let message = one_line(locate(&source(ID, "main"), &of_file).unwrap_err());
    assert!(
        message.contains("the token (/h/token) holds") && !message.contains("HF_TOKEN"),
        "{message}"
    );

    world.assert_whole(&locate(&source(ID, "main"), &with("hf_right")).unwrap());
    assert!(!world.hub.settings().token_leaked);
}

#[test]
fn a_gated_repository_is_a_clear_error() {
    let world = World::new();
    world.hub.settings().gated = true;
    let message = world.refusal();
    assert!(message.contains("gated") && message.contains("HF_TOKEN"), "{message}");
}

/// An address at which nobody listens.
fn dead_endpoint() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn a_hub_that_is_away_is_a_clear_error_when_cold_and_the_cache_when_warm() {
    let world = World::new();
    let away = HubOptions {
        endpoint: Some(dead_endpoint()),
        ..world.options()
    };
    let message = one_line(locate(&source(ID, "main"), &away).unwrap_err());
    assert!(
        message.contains("127.0.0.1") && message.contains("HF_ENDPOINT"),
        "{message}"
    );
    assert!(message.contains("--offline"), "{message}");
    world.locate().unwrap();
    let files = locate(&source(ID, "main"), &away).unwrap();
    world.assert_whole(&files);
    assert!(files.source.contains("from the cache"), "{}", files.source);

    let odd = HubOptions {
        endpoint: Some("localhost:1".into()),
        ..world.options()
    };
    let message = one_line(locate(&source(ID, "main"), &odd).unwrap_err());
    assert!(
        message.contains("HF_ENDPOINT") && message.contains("https://"),
        "{message}"
    );
}

#[test]
fn cold_starts_at_the_same_time_share_one_download() {
    let world = World::new();
    // More than a connection holds that nobody reads from: what is sent to its end is what somebody took.
    let large = weights(1 << 23);
    world.set_files(|files| {
        files.insert("model.safetensors".into(), large.clone());
    });
    world.hub.settings().delay = Duration::from_millis(100);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let files = world.locate().unwrap();
                assert_eq!(Checkpoint::open(&files).unwrap().tensors().len(), 1);
                assert_eq!(files.revision.as_deref(), Some(COMMIT));
            });
        }
    });
    // Small files may be asked for twice before the first is linked, but of the weights there is one body.
    assert_eq!(world.hub.settings().sent_whole, ["model.safetensors"]);
    let blobs = world.cache.path().join("models--owner--model/blobs");
    assert_eq!(fs::read_dir(blobs).unwrap().count(), 3);
}

#[test]
fn split_weights_are_downloaded_shard_by_shard() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let shard = |name: &str, value: f32| {
        let tensor = Tensor::new(&[value], &Device::Cpu).unwrap();
        let path = folder.path().join(name);
        write_safetensors(&path, &[(name[..1].to_string(), tensor)]).unwrap();
        fs::read(path).unwrap()
    };
    let index = br#"{"weight_map":{"a":"a-of-2.safetensors","b":"b-of-2.safetensors"}}"#;
    world.set_files(|files| {
        files.remove("model.safetensors");
        files.insert("model.safetensors.index.json".into(), index.to_vec());
        files.insert("a-of-2.safetensors".into(), shard("a-of-2.safetensors", 1.0));
    });
    let message = world.refusal();
    assert!(message.contains("b-of-2.safetensors"), "{message}");
    world.set_files(|files| {
        files.insert("b-of-2.safetensors".into(), shard("b-of-2.safetensors", 2.0));
    });
    let files = world.locate().unwrap();
    assert_eq!(files.weights.len(), 2);
    assert_eq!(Checkpoint::open(&files).unwrap().tensors().len(), 2);
    let offline = locate(&source(ID, "main"), &world.offline()).unwrap();
    assert_eq!(offline.weights, files.weights);
}

#[test]
fn a_shard_name_that_leaves_the_folder_is_refused_before_it_is_asked_for() {
    let world = World::new();
    world.set_files(|files| {
        files.remove("model.safetensors");
        let index = br#"{"weight_map":{"a":"../../../escaped.safetensors"}}"#;
        files.insert("model.safetensors.index.json".into(), index.to_vec());
    });
    let message = world.refusal();
    assert!(message.contains("not a plain file name"), "{message}");
    assert!(
        !world
            .hub
            .take_requests()
            .iter()
            .any(|request| request.contains("escaped"))
    );
}

#[test]
fn the_cache_has_pythons_layout() {
    let world = World::new();
    world.locate().unwrap();
    let root = world.cache.path().join("models--owner--model");
    assert_eq!(fs::read_to_string(root.join("refs/main")).unwrap(), COMMIT);
    let link = fs::read_link(root.join("snapshots").join(COMMIT).join("model.safetensors")).unwrap();
    assert!(link.starts_with("../../blobs"), "{}", link.display());
    assert_eq!(link.file_name().unwrap().len(), 64);
    assert!(root.join(".no_exist").join(COMMIT).join("crag.json").exists());
    assert!(Path::new(&world.cache.path().join(".locks/models--owner--model")).is_dir());
}

/// A fixture's files, as the hub would serve them.
fn fixture_files(name: &str) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(crate::common::fixture(name)).unwrap();
    let read = |path: std::path::PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read(&path).unwrap())
    };
    entries.map(|entry| read(entry.unwrap().path())).collect()
}

#[test]
fn the_binary_scores_from_the_hub_and_then_without_it() {
    let files = fixture_files("model/safetensors");
    let files: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (n.as_str(), b.as_slice())).collect();
    let hub = Hub::serving("owner/crag", &files);
    let home = tempfile::tempdir().unwrap();
    let cases = crate::common::fixture("model/cases.jsonl");
    let score = |offline: &str| {
        let mut command = crate::common::crag();
        command
            .env("HF_ENDPOINT", hub.endpoint())
            .env("HF_HOME", home.path())
            .env("HF_HUB_OFFLINE", offline)
            .env("CRAG_MODEL", "owner/crag");
        command.args(["score", "-q"]).arg(&cases).output().unwrap()
    };
    let cold_offline = score("1");
    assert_eq!(cold_offline.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&cold_offline.stderr).lines().count(),
        1,
        "one clear line"
    );
    assert!(hub.take_requests().is_empty(), "offline makes no connection");
    let cold = score("0");
    assert_eq!(cold.status.code(), Some(3), "{}", String::from_utf8_lossy(&cold.stderr));
    assert!(!hub.take_requests().is_empty());
    let warm_offline = score("1");
    assert!(hub.take_requests().is_empty(), "offline makes no connection");
    assert_eq!(cold.stdout, warm_offline.stdout);
    assert!(!cold.stdout.is_empty());
}
