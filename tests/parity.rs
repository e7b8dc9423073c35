//! Probabilities against PyTorch, on every fixture, through the binary.

use std::collections::HashMap;

use crate::common::{crag, fixture, json_lines};

/// Largest difference of a probability from PyTorch's f32, on every fixture.
const TOLERANCE_F32: f64 = 1e-5;

fn fixtures() -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(fixture("model")).unwrap();
    let mut folders: Vec<_> = entries
        .map(|e| e.unwrap().path())
        .filter(|p| p.join("expected.jsonl").exists())
        .collect();
    folders.sort();
    folders
}

#[test]
fn every_fixture_gives_pytorchs_probabilities() {
    let cases = fixture("model/cases.jsonl");
    let ids: Vec<serde_json::Value> = json_lines(&std::fs::read(&cases).unwrap());
    let folders = fixtures();
    assert!(folders.len() >= 12, "only {} fixtures", folders.len());
    for folder in folders {
        let expected: HashMap<String, f64> = json_lines(&std::fs::read(folder.join("expected.jsonl")).unwrap())
            .into_iter()
            .map(|r| (r["id"].to_string(), r["probability"].as_f64().unwrap()))
            .collect();
        // The original inserts nothing where an entity does not occur, and says nothing.
        let args = ["score", "--missing-entity", "unmarked", "-q", "--model"];
        let output = crag().args(args).arg(&folder).arg(&cases).assert().code(3);
        let scored = json_lines(&output.get_output().stdout);
        assert_eq!(scored.len(), ids.len(), "{}", folder.display());
        let (mut worst, mut refused) = (0f64, 0);
        let mut spread = (1f64, 0f64);
        for (record, case) in scored.iter().zip(&ids) {
            assert_eq!(record["id"], case["id"], "{}: order", folder.display());
            let Some(probability) = record["probability"].as_f64() else {
                // The original would mark every space; that is the one thing not followed.
                assert_eq!(
                    record["error"]["code"],
                    "empty_entity",
                    "{}: {record}",
                    folder.display()
                );
                refused += 1;
                continue;
            };
            let expected = expected[&record["id"].to_string()];
            worst = worst.max((probability - expected).abs());
            spread = (spread.0.min(expected), spread.1.max(expected));
        }
        assert_eq!(refused, 2, "{}: refused records", folder.display());
        assert!(worst <= TOLERANCE_F32, "{}: off by {worst:e}", folder.display());
        assert!(
            spread.1 - spread.0 > 0.3,
            "{}: probabilities {spread:?} prove nothing",
            folder.display()
        );
    }
}
