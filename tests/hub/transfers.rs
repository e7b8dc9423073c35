//! Files on their way from the hub: connections that break, bytes that are not what they should be, and a hub that has to be asked again.

use std::fs;
use std::time::{Duration, Instant};

use crag::checkpoint::locate;

use super::{ID, World, asking, inspect, one_line, source, usable};
use crate::common::hub::{COMMIT, sha256};

#[test]
fn a_cut_connection_is_resumed_where_it_broke() {
    let world = World::new();
    world.hub.settings().cuts.insert("model.safetensors".into(), 3);
    world.assert_whole(&world.locate().unwrap());
    let requests = world.hub.take_requests();
    let from: Vec<&String> = requests
        .iter()
        .filter(|r| r.contains("/blobs/") && r.contains(" from "))
        .collect();
    assert_eq!(from.len(), 3, "{requests:?}");
    // Resumed, not restarted: what was cut off was on its way once.
    let sent = world.hub.settings().bytes_sent;
    let whole = world.weights.len();
    assert!(sent < whole + 1000, "{sent} for {whole}");
}

#[test]
fn a_hub_that_ignores_ranges_gives_the_whole_file_again() {
    let world = World::new();
    world.hub.settings().ignore_ranges = true;
    world.hub.settings().cuts.insert("model.safetensors".into(), 2);
    world.assert_whole(&world.locate().unwrap());
}

#[test]
fn a_connection_that_keeps_breaking_is_given_up_and_the_next_run_goes_on() {
    let world = World::new();
    world.hub.settings().ignore_ranges = true;
    world.hub.settings().cuts.insert("model.safetensors".into(), 1000);
    let message = world.refusal();
    assert!(
        message.contains("model.safetensors") && message.contains(&world.hub.endpoint()),
        "{message}"
    );
    assert!(
        message.contains("cut") || message.contains("bytes arrived"),
        "{message}"
    );
    assert!(
        message.contains("--offline") && message.contains("HF_ENDPOINT"),
        "{message}"
    );

    world.hub.settings().ignore_ranges = false;
    world.hub.settings().cuts.clear();
    world.hub.take_requests();
    world.assert_whole(&world.locate().unwrap());
    let requests = world.hub.take_requests();
    assert!(
        requests.iter().any(|r| r.contains("/blobs/") && r.contains(" from ")),
        "{requests:?}"
    );
}

impl World {
    /// Names in `blobs` that begin with the hash of the weights, such as of what has arrived in part.
    fn blobs_of_weights(&self) -> Vec<std::path::PathBuf> {
        let hash = sha256(&self.weights);
        let blobs = fs::read_dir(self.cache.path().join("models--owner--model/blobs")).unwrap();
        let blobs = blobs.map(|blob| blob.unwrap().path());
        let is_theirs = |path: &std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(&hash);
        blobs.filter(is_theirs).collect()
    }
}

#[test]
fn a_file_of_the_cache_that_is_shorter_than_the_hub_states_is_fetched_again() {
    let world = World::new();
    let blobs = world.cache.path().join("models--owner--model/blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(sha256(&world.weights)), &world.weights[..1000]).unwrap();
    world.assert_whole(&world.locate().unwrap());
}

#[test]
fn a_copy_that_ends_before_the_stated_length_is_given_up() {
    for no_linked_etags in [true, false] {
        let world = World::new();
        world.hub.settings().no_linked_etags = no_linked_etags;
        world.hub.settings().shortened.insert("model.safetensors".into(), 1000);
        let message = world.refusal();
        let expected = format!("1000 of {} bytes arrived", world.weights.len());
        assert!(message.contains(&expected), "{message}");
        // Ranges from there on are answered with 416, after which it comes from its first byte again.
        let requests = world.hub.take_requests();
        let blobs = requests.iter().filter(|request| request.contains("/blobs/")).count();
        assert_eq!(blobs, 5, "{requests:?}");
    }
}

#[test]
fn a_file_that_is_not_what_its_hash_says_is_refused_and_nothing_of_it_is_kept() {
    let world = World::new();
    for cuts in [0, 1] {
        world.hub.settings().damages.insert("model.safetensors".into(), 1000);
        world.hub.settings().cuts.insert("model.safetensors".into(), cuts);
        let message = world.refusal();
        for part in [
            "model.safetensors",
            "SHA-256",
            &format!("the hub states {}…", &sha256(&world.weights)[..12]),
            "thrown away",
            "HF_ENDPOINT",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(world.blobs_of_weights().is_empty(), "{:?}", world.blobs_of_weights());
        let offline = one_line(locate(&source(ID, COMMIT), &world.offline()).unwrap_err());
        assert!(offline.contains("no complete weights"), "{offline}");
    }
    world.hub.settings().damages.clear();
    world.assert_whole(&world.locate().unwrap());
    assert_eq!(world.blobs_of_weights().len(), 1);
}

#[test]
fn what_an_earlier_run_left_counts_into_the_hash_and_is_fetched_again_if_it_is_damaged() {
    let world = World::new();
    world.hub.settings().ignore_ranges = true;
    for length in [1000, world.weights.len()] {
        world.hub.settings().cuts.insert("model.safetensors".into(), 1000);
        world.refusal();
        world.hub.settings().cuts.clear();
        world.hub.settings().ignore_ranges = false;
        let [part] = &world.blobs_of_weights()[..] else {
            panic!("{:?}", world.blobs_of_weights());
        };
        let mut bytes = world.weights[..length].to_vec();
        bytes[10] ^= 1;
        fs::write(part, bytes).unwrap();
        world.assert_whole(&world.locate().unwrap());
        assert_eq!(fs::read(&world.blobs_of_weights()[0]).unwrap(), world.weights);
        fs::remove_dir_all(world.cache.path().join("models--owner--model")).unwrap();
        world.hub.settings().ignore_ranges = true;
    }
}

#[test]
fn what_an_earlier_run_left_of_a_small_file_is_fetched_anew() {
    let world = World::new();
    world.locate().unwrap();
    let root = world.cache.path().join("models--owner--model");
    let config = root.join("snapshots").join(COMMIT).join("config.json");
    let blob = fs::canonicalize(&config).unwrap();
    fs::remove_file(&config).unwrap();
    // As long as a part of it, of which no hash would tell that it is not.
    let part = blob.with_added_extension("incomplete");
    fs::rename(&blob, &part).unwrap();
    fs::write(&part, b"{\"num_attention_heads\": 3").unwrap();
    world.assert_whole(&world.locate().unwrap());
}

#[test]
fn an_etag_of_the_host_that_weights_are_redirected_to_is_no_hash_to_hold_them_against() {
    let world = World::new();
    world.hub.settings().no_linked_etags = true;
    world.assert_whole(&world.locate().unwrap());
}

#[test]
fn an_overloaded_hub_is_asked_again() {
    let world = World::new();
    world.hub.settings().overloaded = 1;
    world.assert_whole(&world.locate().unwrap());
}

/// A hub that refuses the next requests for having had too many, and says when to come back.
fn limit(world: &World, requests: u32, header: &str) {
    let mut settings = world.hub.settings();
    (settings.limited, settings.limit) = (requests, header.to_owned());
}

#[test]
fn a_hub_that_says_when_to_come_back_is_asked_then_and_not_before() {
    for header in ["RateLimit: \"resolvers\";r=0;t=1", "Retry-After: 1"] {
        let world = usable();
        limit(&world, 1, header);
        let start = Instant::now();
        let output = inspect(&world, &world.hub.endpoint(), "0");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        assert!(start.elapsed() >= Duration::from_secs(1));
        let lists = world.hub.take_requests();
        let lists = lists.iter().filter(|request| request.contains("/api/")).count();
        assert_eq!(lists, 2, "{header}");
    }
    // The list first, then a file, each twice.
    for allowed in [0, 1] {
        let world = World::new();
        limit(&world, 2, "Retry-After: 1");
        world.hub.settings().allowed = allowed;
        let start = Instant::now();
        world.assert_whole(&world.locate().unwrap());
        assert!(start.elapsed() >= Duration::from_secs(2));
    }
}

#[test]
fn what_does_not_say_when_to_come_back_is_tried_again_soon() {
    // Seconds to the end of a window of which something remains, no wait at all, and a date.
    for header in [
        "RateLimit: \"resolvers\";r=2999;t=280",
        "Retry-After: 0",
        "Retry-After: Fri, 31 Dec 2100 23:59:59 GMT",
    ] {
        let world = World::new();
        limit(&world, 1, header);
        world.assert_whole(&world.locate().unwrap());
    }
}

#[test]
fn a_wait_is_said_and_one_that_is_too_long_is_an_error() {
    let world = usable();
    limit(&world, 1, "RateLimit: \"api\";r=0;t=1");
    let mut command = asking(&world, &world.hub.endpoint());
    let output = command.args(["inspect", "--model", ID]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let said = "owner/model: status 429, too many requests from this address; with a token (HF_TOKEN) more are allowed; the hub asks to \
        come back in 1 s; waiting";
    assert!(stderr.contains(said), "{stderr}");
    let world = World::new();
    limit(&world, 1, "Retry-After: 3600");
    let message = world.refusal();
    assert!(
        message.contains("could not get the list of files") && message.contains("come back in 3600 s"),
        "{message}"
    );
    assert_eq!(world.hub.take_requests().len(), 1);
}

#[test]
fn a_model_in_the_cache_does_not_wait_for_a_hub_that_has_too_many_requests() {
    let world = World::new();
    world.locate().unwrap();
    world.hub.take_requests();
    limit(&world, 1, "Retry-After: 300");
    let files = world.locate().unwrap();
    world.assert_whole(&files);
    assert!(
        files.warnings[0].contains("status 429") && files.warnings[0].contains("the copy in the cache is used"),
        "{:?}",
        files.warnings
    );
    assert_eq!(world.hub.take_requests().len(), 1);
}

#[test]
fn a_large_download_is_said_where_no_bar_is_drawn() {
    let world = World::new();
    let large = super::weights(1 << 22);
    world.set_files(|files| {
        files.insert("model.safetensors".into(), large);
    });
    let mut command = asking(&world, &world.hub.endpoint());
    let output = command.args(["inspect", "--model", ID]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let said = stderr
        .lines()
        .filter(|line| line.contains("downloading"))
        .collect::<Vec<_>>();
    assert_eq!(
        said,
        ["crag: owner/model: downloading model.safetensors (16.8 MB)"],
        "{stderr}"
    );
}
