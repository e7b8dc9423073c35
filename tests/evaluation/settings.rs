//! Which settings `crag calibrate --output` writes beside the calibration, and into a file that has some.

use serde_json::{Value, json};

use super::calibrate::sidecar;
use super::{Folder, Run, run, scored};
use crate::common::{crag, fixture};

#[test]
fn settings_go_along_with_a_calibration_of_scored_records_wherever_the_model_is() {
    let folder = Folder::new();
    let lines = scored(60, 0.0);
    let records = folder.write("records.jsonl", &lines);
    // A model on the hub, as it lies in the cache that is shared with Python.
    let commit = "a".repeat(40);
    let repository = folder.path("hf/hub/models--own--model");
    let snapshot = repository.join("snapshots").join(&commit);
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(repository.join("refs")).unwrap();
    std::fs::write(repository.join("refs/main"), &commit).unwrap();
    for entry in std::fs::read_dir(fixture("model/views")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), snapshot.join(entry.file_name())).unwrap();
    }
    let own = folder.write("own.json", "{\"threshold\": 0.123}");
    let out = folder.name("out.json");
    let written = |arguments: &[&str]| {
        let output = crag()
            .env("HF_HOME", folder.path("hf"))
            .args(["calibrate", "--force", "--output", &out, &records])
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        let mut written: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
        std::fs::remove_file(&out).unwrap();
        assert!(written.as_object_mut().unwrap().remove("calibration").is_some());
        (written, said)
    };
    let of_demo = include_str!("../../src/checkpoint/demo/crag.json");
    let models = [
        ("own/model", sidecar(&fixture("model/views"))),
        ("demo", serde_json::from_str(of_demo).unwrap()),
    ];
    for (model, settings) in models {
        let named = ["--scored", "--offline", "--model", model];
        let (found, said) = written(&named);
        assert_eq!(found, settings, "{model}");
        assert!(!said.contains("the calibration alone"), "{said}");
        let (found, _) = written(&[&named[..], &["--model-config", &own]].concat());
        assert_eq!(found, json!({"threshold": 0.123}), "{model}");
    }
    // What no model is named for are settings, too.
    assert_eq!(
        written(&["--scored", "--model-config", &own]).0,
        json!({"threshold": 0.123})
    );
    let elsewhere = [
        "calibrate",
        "--scored",
        "--output",
        &out,
        "--model",
        "own/other",
        "--offline",
    ];
    let missing = run(&elsewhere, lines);
    assert!(
        missing.code == 1 && missing.stderr.contains("own/other"),
        "{}",
        missing.stderr
    );
    assert!(!folder.path("out.json").exists());
}

/// The settings in the file, without its calibration, which has to be there.
fn settings_in(folder: &Folder, name: &str) -> Value {
    let mut written: Value = serde_json::from_slice(&std::fs::read(folder.path(name)).unwrap()).unwrap();
    assert!(written.as_object_mut().unwrap().remove("calibration").is_some());
    written
}

#[test]
fn a_calibration_goes_where_a_link_to_the_settings_in_use_leads() {
    let folder = Folder::new();
    let records = folder.write("records.jsonl", &scored(60, 0.0));
    let real = folder.write("real.json", "{\"threshold\": 0.123}");
    std::os::unix::fs::symlink("real.json", folder.path("link.json")).unwrap();
    let arguments = [
        "calibrate",
        "--scored",
        "--model-config",
        &folder.name("link.json"),
        &records,
    ];
    let found = run(&arguments, "");
    assert_eq!(found.code, 0, "{}", found.stderr);
    assert!(folder.path("link.json").is_symlink());
    let written: Value = serde_json::from_slice(&std::fs::read(real).unwrap()).unwrap();
    assert!(written["calibration"].is_object(), "{written}");
}

#[test]
fn a_file_with_other_settings_than_those_in_use_is_not_added_to() {
    let folder = Folder::new();
    let lines = scored(60, 0.0);
    let pairs = folder.write("pairs.jsonl", &lines.replace("\"probability\"", "\"old\""));
    let records = folder.write("records.jsonl", &lines);
    // Of another model.
    let other = json!({"threshold": 0.9, "markers": false});
    let in_use = folder.write("in_use.json", "{\"threshold\": 0.123, \"max_length\": 24}");
    let model = fixture("model/views").display().to_string();
    let calibrate = |more: &[&str], existing: &Value| -> Run {
        let out = folder.write("out.json", &existing.to_string());
        run(&[&["calibrate", "--folds", "1", "--output", &out], more].concat(), "")
    };
    let of_model: &[&str] = &["--model", &model, &pairs];
    let of_scored: &[&str] = &["--scored", "--model", &model, &records];
    let of_file: &[&str] = &["--scored", "--model-config", &in_use, &records];
    let written = [
        sidecar(&fixture("model/views")),
        sidecar(&fixture("model/views")),
        json!({"threshold": 0.123, "max_length": 24}),
    ];
    for (named, settings) in [of_model, of_scored, of_file].into_iter().zip(written) {
        let refused = calibrate(named, &other);
        assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{}", refused.stderr);
        let expected = "out.json: states \"markers\", \"threshold\" otherwise than the settings in use";
        assert!(
            refused.stderr.contains(expected) && refused.stderr.contains("--force"),
            "{}",
            refused.stderr
        );
        let kept: Value = serde_json::from_slice(&std::fs::read(folder.path("out.json")).unwrap()).unwrap();
        assert_eq!(kept, other);

        let forced = calibrate(&[named, &["--force"]].concat(), &other);
        assert_eq!(forced.code, 0, "{}", forced.stderr);
        assert!(
            forced
                .stderr
                .contains("\"markers\", \"threshold\" replaced by the settings in use"),
            "{}",
            forced.stderr
        );
        assert_eq!(settings_in(&folder, "out.json"), settings);

        // What is stated as it is in use stays, also where it is what is taken anyway; the rest goes along.
        let mut same = json!({"threshold": settings["threshold"], "markers": true});
        let added = calibrate(named, &same);
        assert_eq!(added.code, 0, "{}", added.stderr);
        let stated = settings.as_object().unwrap().clone();
        same.as_object_mut().unwrap().extend(stated);
        assert_eq!(settings_in(&folder, "out.json"), same);
    }
    // A file to which no model is named is added to, whatever it states.
    let added = calibrate(&["--scored", &records], &other);
    assert_eq!(added.code, 0, "{}", added.stderr);
    assert_eq!(settings_in(&folder, "out.json"), other);
}
