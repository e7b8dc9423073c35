//! The readers, from a file on disk to numbers: against what PyTorch wrote, and against damage.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Expected {
    storage: String,
    ignored: Vec<String>,
    tensors: BTreeMap<String, ExpectedTensor>,
}

#[derive(Deserialize)]
struct ExpectedTensor {
    dtype: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoint")
}

fn open(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let files = locate(&ModelSource::File(path.to_path_buf()), &HubOptions::default())?;
    Checkpoint::open(&files)
}

fn refusal(path: &Path) -> String {
    match open(path) {
        Ok(_) => panic!("{} was read", path.display()),
        Err(error) => {
            let message = error.to_string();
            assert!(
                message.contains(&path.file_name().unwrap().to_string_lossy().into_owned()),
                "{message}"
            );
            assert!(!message.contains('\n'), "{message}");
            message
        }
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let wide = tensor.to_dtype(DType::F32).unwrap();
    wide.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn every_pytorch_file_reads_as_pytorch_reads_it() {
    let text = fs::read_to_string(fixtures().join("expected.json")).unwrap();
    let expected: BTreeMap<String, Expected> = serde_json::from_str(&text).unwrap();
    assert!(expected.len() >= 12);
    for (file, expected) in expected {
        let checkpoint = open(&fixtures().join(&file)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(checkpoint.storage(), expected.storage, "{file}");
        let names: Vec<&str> = checkpoint.tensors().iter().map(|info| info.name.as_str()).collect();
        assert_eq!(names, expected.tensors.keys().collect::<Vec<_>>(), "{file}");
        for ignored in expected.ignored {
            assert!(checkpoint.tensor(&ignored).is_err(), "{file}: {ignored}");
        }
        for info in checkpoint.tensors() {
            let wanted = &expected.tensors[&info.name];
            let dtype = match wanted.dtype.as_str() {
                "float32" => DType::F32,
                "float16" => DType::F16,
                "bfloat16" => DType::BF16,
                other => panic!("{other}"),
            };
            let tensor = checkpoint.tensor(&info.name).unwrap();
            assert_eq!((info.dtype, tensor.dtype()), (dtype, dtype), "{file}: {}", info.name);
            assert_eq!(
                (&info.shape[..], tensor.dims()),
                (&wanted.shape[..], &wanted.shape[..]),
                "{file}: {}",
                info.name
            );
            assert_eq!(values(&tensor), wanted.values, "{file}: {}", info.name);
        }
    }
}

#[test]
fn pytorch_files_in_other_forms_are_refused_with_the_way_out() {
    for (file, parts) in [
        ("legacy.bin", &["before 1.6", "torch.save"][..]),
        ("torchscript.bin", &["TorchScript", "state_dict()"]),
        ("whole_module.bin", &["torch.nn.modules.linear.Linear", "state_dict()"]),
        (
            "no_state_dict.bin",
            &["\"epoch\" (an int)", "\"weights\" (a list)", "model_state_dict"],
        ),
        ("mixed.bin", &["\"extra\"", "a dict of 1", "under \"state_dict\""]),
        ("double.bin", &["\"layer.weight\"", "DoubleStorage"]),
        ("int64_buffer.bin", &["\"num_batches_tracked\"", "LongStorage"]),
        ("sparse.bin", &["\"layer.weight\"", "_rebuild_sparse_tensor"]),
        ("negated.bin", &["\"layer.weight\"", "metadata", "resolve_neg()"]),
    ] {
        let message = refusal(&fixtures().join(file));
        for part in parts {
            assert!(message.contains(part), "{file}: {message}");
        }
    }
}

fn tensors() -> Vec<(String, Tensor)> {
    let cpu = &Device::Cpu;
    let half: Vec<f16> = [1.0, -0.5, 65504.0].map(f16::from_f32).to_vec();
    let bfloat: Vec<bf16> = [1.0, -3.0e38, 1e-30, 0.1].map(bf16::from_f32).to_vec();
    vec![
        (
            "b.weight".into(),
            Tensor::new(&[[1f32, 2.0, 3.0], [4.0, 5.0, -0.0]], cpu).unwrap(),
        ),
        ("half".into(), Tensor::from_vec(half, 3, cpu).unwrap()),
        ("a.bfloat".into(), Tensor::from_vec(bfloat, (2, 2), cpu).unwrap()),
        ("scalar".into(), Tensor::new(0.25f32, cpu).unwrap()),
        (
            "transposed".into(),
            Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], cpu).unwrap().t().unwrap(),
        ),
    ]
}

#[test]
fn what_is_written_reads_back_the_same_and_in_any_order_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut tensors = tensors();
    write_safetensors(&path, &tensors).unwrap();
    let first = fs::read(&path).unwrap();
    assert!(safetensors::SafeTensors::deserialize(&first).is_ok());
    let checkpoint = open(&path).unwrap();
    assert_eq!(checkpoint.storage(), "safetensors, memory-mapped");
    assert_eq!(checkpoint.tensors().len(), tensors.len());
    for (name, tensor) in &tensors {
        let read = checkpoint.tensor(name).unwrap();
        assert_eq!((read.dims(), read.dtype()), (tensor.dims(), tensor.dtype()));
        assert_eq!(values(&read), values(tensor), "{name}");
    }
    tensors.reverse();
    // Over a file that is mapped at this moment: the map must keep the old bytes.
    write_safetensors(&path, &tensors).unwrap();
    assert_eq!(fs::read(&path).unwrap(), first);
    assert_eq!(values(&checkpoint.tensor("scalar").unwrap()), [0.25]);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_failed_write_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let ids = Tensor::new(&[1i64], &Device::Cpu).unwrap();
    let error = write_safetensors(&path, &[("ids".into(), ids)])
        .unwrap_err()
        .to_string();
    assert!(error.contains("\"ids\"") && error.contains("i64"), "{error}");
    let one = Tensor::new(1f32, &Device::Cpu).unwrap();
    let twice = [("a".to_string(), one.clone()), ("a".to_string(), one.clone())];
    assert!(
        write_safetensors(&path, &twice)
            .unwrap_err()
            .to_string()
            .contains("two of this name")
    );
    assert!(write_safetensors(&folder.path().join("no/folder.safetensors"), &twice[..1]).is_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// A safetensors file of this header and that many bytes of data.
fn crafted(folder: &Path, header: &str, data: usize) -> PathBuf {
    let path = folder.join("crafted.safetensors");
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn each_flaw_of_a_safetensors_header_is_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    for (header, data, part) in [
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
            4,
            "cut short",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
            9,
            "9 bytes of data",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#,
            8,
            "does not take the 8 bytes",
        ),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, 8, "hole"),
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
            12,
            "overlap",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}"#,
            12,
            "hole",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
            4,
            "\"a\" occurs twice",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#,
            0,
            "does not take the 0 bytes",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,0]}}"#,
            0,
            "header is not valid",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,0]}}"#,
            0,
            "tensor \"a\"",
        ),
        (
            r#"{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#,
            8,
            "type I64 is not read here",
        ),
        (
            r#"{"a":{"dtype":"X","shape":[1],"data_offsets":[0,8]}}"#,
            8,
            "tensor \"a\"",
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}"#,
            4,
            "17 dimensions",
        ),
        (
            r#"{"a":{"dtype":"X\nY\u0007","shape":[1],"data_offsets":[0,8]}}"#,
            8,
            r"variant `X\nY\u{7}`",
        ),
        (r#"{"a":[[[["#, 0, "header is not valid"),
        (r#"{"__metadata__":{"format":"pt"}}"#, 0, "holds no tensors"),
        ("{}", 0, "holds no tensors"),
        (r#"{} x"#, 0, "header is not valid"),
    ] {
        let message = refusal(&crafted(folder.path(), header, data));
        assert!(message.contains(part), "{header}: {message}");
        assert!(!message.contains(char::is_control), "{header}: {message}");
    }
}

#[test]
fn two_names_that_become_one_are_refused_and_position_ids_of_any_type_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"module.a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
    let message = refusal(&crafted(folder.path(), header, 8));
    assert!(message.contains("\"a\": there are two of this name"), "{message}");
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"x.position_ids":{"dtype":"I64","shape":[1],"data_offsets":[4,12]}}"#;
    let checkpoint = open(&crafted(folder.path(), header, 12)).unwrap();
    assert_eq!(checkpoint.tensors().len(), 1);
    assert!(
        checkpoint
            .tensor("x.position_ids")
            .unwrap_err()
            .to_string()
            .contains("no tensor")
    );
}

#[test]
fn tensors_that_save_model_left_out_for_being_the_same_as_others_are_those() {
    let folder = tempfile::tempdir().unwrap();
    let header = |metadata: &str| {
        format!(r#"{{"__metadata__":{metadata},"b.weight":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}}}"#)
    };
    // What is no name of a tensor says something else.
    let text = header(r#"{"format":"pt","a.weight":"b.weight","c.weight":"d.weight","b.weight":"b.weight"}"#);
    let checkpoint = open(&crafted(folder.path(), &text, 8)).unwrap();
    let names: Vec<&str> = checkpoint.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["a.weight", "b.weight"]);
    assert_eq!(values(&checkpoint.tensor("a.weight").unwrap()), [0.0, 0.0]);
    // Many names for one tensor are not to describe more memory than the file is worth.
    let aliases: Vec<String> = (0..9).map(|i| format!(r#""a{i}.weight":"b.weight""#)).collect();
    let text = header(&format!("{{{}}}", aliases.join(",")));
    let text = text.replace("[2]", "[2000]").replace("[0,8]", "[0,8000]");
    let message = refusal(&crafted(folder.path(), &text, 8000));
    assert!(message.contains("tensors up to this one would take"), "{message}");
}

#[test]
fn a_torn_or_foreign_file_is_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(fixtures().join("plain.bin")).unwrap();
    let mut deflated = whole.clone();
    // The method of the first local header and of every central one.
    let centrals: Vec<usize> = (0..whole.len() - 4)
        .filter(|&i| whole[i..].starts_with(b"PK\x01\x02"))
        .collect();
    for at in centrals {
        deflated[at + 10] = 8;
    }
    let cases: [(&str, &[u8], &str); 12] = [
        ("empty.safetensors", b"", "the file is empty"),
        ("empty.bin", b"", "the file is empty"),
        ("short.safetensors", b"abc", "too few"),
        ("header.safetensors", b"\x40\0\0\0\0\0\0\0{\"a\":", "claims 64 bytes"),
        (
            "huge.safetensors",
            b"\xff\xff\xff\xff\xff\xff\xff\xff{\"a\":",
            "the format allows",
        ),
        ("large.safetensors", b"\0\xe1\xf5\x05\0\0\0\0{\"a\":", "cut short"),
        (
            "pointer.safetensors",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
            "git lfs pull",
        ),
        (
            "page.bin",
            b"\n<!DOCTYPE html><html><body>404</body></html>",
            "an HTML page",
        ),
        ("noise.bin", b"GGUF\0\0\0\0\0\0\0\0\0\0\0\0", "neither safetensors nor"),
        ("pickle.bin", b"\x80\x02}q\0.", "a pickle outside"),
        ("torn.bin", &whole[..whole.len() / 2], "cut short"),
        ("deflated.bin", &deflated, "compressed"),
    ];
    for (name, bytes, part) in cases {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let message = refusal(&path);
        assert!(message.contains(part), "{name}: {message}");
    }
    let message = refusal(folder.path());
    assert!(message.contains("not a regular file"), "{message}");
}

#[test]
fn an_index_is_checked_against_its_shards() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let write = |name: &str, tensors: &[(String, Tensor)]| write_safetensors(&dir.join(name), tensors).unwrap();
    let all = tensors();
    write("one.safetensors", &all[..2]);
    write("two.safetensors", &all[2..]);
    let index = |entries: &str| {
        fs::write(
            dir.join("model.safetensors.index.json"),
            format!("{{\"metadata\":{{}},\"weight_map\":{entries}}}"),
        )
        .unwrap();
        locate(
            &ModelSource::parse(dir.to_str().unwrap(), None).unwrap(),
            &HubOptions::default(),
        )
    };
    let good = r#"{"b.weight":"one.safetensors","half":"one.safetensors","a.bfloat":"two.safetensors",
                   "scalar":"two.safetensors","transposed":"two.safetensors"}"#;
    let checkpoint = Checkpoint::open(&index(good).unwrap()).unwrap();
    assert_eq!(checkpoint.storage(), "safetensors, memory-mapped, 2 shards");
    let names: Vec<&str> = checkpoint.tensors().iter().map(|info| info.name.as_str()).collect();
    assert_eq!(names, ["a.bfloat", "b.weight", "half", "scalar", "transposed"]);
    assert!(checkpoint.tensors()[1].file.ends_with("one.safetensors"));
    assert_eq!(values(&checkpoint.tensor("transposed").unwrap()), [1.0, 3.0, 2.0, 4.0]);

    for (entries, part) in [
        (
            r#"{"b.weight":"three.safetensors"}"#,
            "\"three.safetensors\" is missing",
        ),
        (
            r#"{"gone":"one.safetensors"}"#,
            "tensor \"gone\": expected in shard one.safetensors",
        ),
        (r#"{"b.weight":"../one.safetensors"}"#, "not a plain file name"),
        (r#"{"b.weight":"/etc/passwd"}"#, "not a plain file name"),
        (r#"{"b.weight":"c:\\one"}"#, "not a plain file name"),
        (r#"{"b.weight":""}"#, "not a plain file name"),
        (
            r#"{"b.weight":"model.safetensors.index.json"}"#,
            "not a plain file name",
        ),
        ("{}", "names no shard"),
        ("[]", "weight_map"),
        (r#"{"b.weight":1}"#, "weight_map"),
    ] {
        let message = index(entries).unwrap_err().to_string();
        assert!(
            message.contains(part) && message.contains("index.json"),
            "{entries}: {message}"
        );
    }
    // Two shards that both hold a tensor.
    write("two.safetensors", &all[1..]);
    let message = Checkpoint::open(&index(good).unwrap()).unwrap_err().to_string();
    assert!(
        message.contains("\"half\"") && message.contains("one.safetensors"),
        "{message}"
    );
}

#[test]
fn a_small_file_whose_link_leads_nowhere_or_that_is_a_pipe_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write_safetensors(&dir.join("model.safetensors"), &tensors()).unwrap();
    let message = |name: &str| {
        let source = ModelSource::parse(dir.to_str().unwrap(), None).unwrap();
        let message = locate(&source, &HubOptions::default()).unwrap_err().to_string();
        fs::remove_file(dir.join(name)).unwrap();
        message
    };
    for name in ["config.json", "crag.json", "tokenizer_config.json"] {
        std::os::unix::fs::symlink("gone", dir.join(name)).unwrap();
        let broken = message(name);
        let expected = format!("{name}: reading it failed: the link leads nowhere");
        assert!(broken.contains(&expected), "{broken}");
        // Opening one waits for whoever writes to it.
        make_pipe(&dir.join(name));
        let pipe = message(name);
        assert!(pipe.contains(&format!("{name}: not a regular file")), "{pipe}");
    }
    fs::remove_file(dir.join("model.safetensors")).unwrap();
    make_pipe(&dir.join("model.safetensors"));
    let source = ModelSource::parse(dir.to_str().unwrap(), None).unwrap();
    let error = Checkpoint::open(&locate(&source, &HubOptions::default()).unwrap()).unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
    make_pipe(&dir.join("model.safetensors.index.json"));
    fs::remove_file(dir.join("model.safetensors")).unwrap();
    let pipe = message("model.safetensors.index.json");
    assert!(pipe.contains("index.json: not a regular file"), "{pipe}");
}

fn make_pipe(path: &std::path::Path) {
    // Not by a child, which would hold other tests' locks until it begins.
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: the name ends in a zero byte and outlives the call.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}

#[test]
fn a_folder_prefers_safetensors_and_brings_what_lies_beside() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let source = ModelSource::parse(dir.to_str().unwrap(), None).unwrap();
    let located = || locate(&source, &HubOptions::default());
    let message = located().unwrap_err().to_string();
    assert!(
        message.contains("model.safetensors, ") && message.contains("pytorch_model.bin"),
        "{message}"
    );

    fs::copy(fixtures().join("plain.bin"), dir.join("pytorch_model.bin")).unwrap();
    fs::write(dir.join("crag.json"), b"{}").unwrap();
    fs::write(dir.join("vocab.txt"), b"[PAD]\n").unwrap();
    let files = located().unwrap();
    assert_eq!(files.weights, [WeightFile::Path(dir.join("pytorch_model.bin"))]);
    assert_eq!(files.sidecar.unwrap().bytes.as_ref(), b"{}");
    assert!(files.vocab_txt.unwrap().name.ends_with("vocab.txt"));
    assert!(files.config.is_none() && files.tokenizer_json.is_none() && files.revision.is_none());

    write_safetensors(&dir.join("model.safetensors"), &tensors()).unwrap();
    assert_eq!(
        located().unwrap().weights,
        [WeightFile::Path(dir.join("model.safetensors"))]
    );
    // A single file brings its neighbours too.
    let one = ModelSource::parse(dir.join("pytorch_model.bin").to_str().unwrap(), None).unwrap();
    let files = locate(&one, &HubOptions::default()).unwrap();
    assert_eq!(files.weights, [WeightFile::Path(dir.join("pytorch_model.bin"))]);
    assert!(files.sidecar.is_some());

    fs::write(
        dir.join("tokenizer.json"),
        b"version https://git-lfs.github.com/spec/v1\n",
    )
    .unwrap();
    assert!(located().unwrap_err().to_string().contains("git lfs pull"));
}

#[test]
fn a_model_is_demo_or_a_path_or_a_hub_id_or_an_error_that_says_so() {
    assert_eq!(ModelSource::parse("demo", None).unwrap(), ModelSource::Demo);
    let hub = |spec: &str, revision: Option<&str>| match ModelSource::parse(spec, revision) {
        Ok(ModelSource::Hub { id, revision }) => (id, revision),
        other => panic!("{spec}: {other:?}"),
    };
    assert_eq!(hub("owner/name", None), ("owner/name".into(), "main".into()));
    assert_eq!(hub("a-b/C.d_e", Some("v1.0/x")), ("a-b/C.d_e".into(), "v1.0/x".into()));
    for spec in [
        "./nope",
        "../nope",
        "nope",
        "",
        "/nope/nope",
        "a/b/c",
        "a/",
        "/a",
        "a b/c",
        "a/..",
        "a--b/c",
        "out/model.safetensors",
        "a/b\n",
        "ä/b",
    ] {
        let error = ModelSource::parse(spec, None).unwrap_err().to_string();
        assert!(error.contains("owner/name"), "{error}");
    }
    for revision in ["", "..", "a/../b", "/a", "a/", "a b", "a?b", "-\u{e9}", ".git"] {
        assert!(ModelSource::parse("a/b", Some(revision)).is_err(), "{revision}");
    }
    assert!(
        ModelSource::parse("demo", Some("v1"))
            .unwrap_err()
            .to_string()
            .contains("--revision")
    );
}

#[test]
fn the_demo_is_whole_and_embedded() {
    let files = locate(&ModelSource::Demo, &HubOptions::default()).unwrap();
    assert!(files.config.is_some() && files.sidecar.is_some() && files.vocab_txt.is_some());
    let checkpoint = Checkpoint::open(&files).unwrap();
    assert_eq!(checkpoint.storage(), "safetensors, embedded");
    let embedded = [&files.config, &files.sidecar, &files.vocab_txt, &files.tokenizer_config];
    let small: usize = embedded.into_iter().flatten().map(|file| file.bytes.len()).sum();
    let weights: u64 = checkpoint.weight_hashes().unwrap().iter().map(|file| file.bytes).sum();
    assert!(
        small as u64 + weights <= 4_000_000,
        "{small} + {weights} bytes in the binary"
    );
    for info in checkpoint.tensors() {
        assert_eq!(checkpoint.tensor(&info.name).unwrap().dims(), info.shape);
    }
}
