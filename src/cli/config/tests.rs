//! The layers on a command line made for it: what counts more, and what each mistake is told.

use super::*;

fn command() -> Command {
    Command::new("crag")
        .arg(
            Arg::new("config")
                .long("config")
                .global(true)
                .value_parser(clap::value_parser!(PathBuf)),
        )
        .arg(Arg::new("quiet").long("quiet").global(true).action(ArgAction::SetTrue))
        .subcommand(
            Command::new("score")
                .arg(
                    Arg::new("threshold")
                        .long("threshold")
                        .value_parser(crate::cli::values::parse_threshold),
                )
                .arg(
                    Arg::new("window")
                        .long("window")
                        .value_parser(["start", "mention"])
                        .default_value("start"),
                )
                .arg(Arg::new("field").long("field").action(ArgAction::Append))
                .arg(Arg::new("offline").long("offline").action(ArgAction::SetTrue))
                .arg(Arg::new("force").long("force").action(ArgAction::SetTrue))
                .arg(Arg::new("max_line_bytes").long("max-line-bytes"))
                .arg(Arg::new("drug").long("drug").help_heading(DATA_HEADING)),
        )
        .subcommand(
            Command::new("extract").arg(
                Arg::new("window")
                    .long("window")
                    .value_parser(clap::value_parser!(usize)),
            ),
        )
}

fn message(error: ParseError) -> String {
    match error {
        ParseError::CommandLine(error) => error.to_string(),
        ParseError::Usage(error) => error.to_string(),
    }
}

/// The settings in force for `arguments`, as `name=value from`.
fn run(arguments: &[&str], variables: &[(&str, &str)], file: Option<&str>) -> Result<Vec<String>, String> {
    let variable = |name: &str| {
        let found = variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| OsString::from(value))
    };
    let command = command();
    let file = match file {
        Some(text) => Some(ConfigFile::parse(&PathBuf::from("c.toml"), text, &command).map_err(|e| e.to_string())?),
        None => None,
    };
    let layers = Layers {
        variable: &variable,
        file,
    };
    let arguments: Vec<OsString> = std::iter::once(&"crag").chain(arguments).map(OsString::from).collect();
    let name = arguments.get(1).and_then(|name| name.to_str()).map(str::to_owned);
    let parsed = layers.parse(command, &arguments, name.as_deref()).map_err(message)?;
    let row = |row: &SettingRow| format!("{}={} {}", row.setting, row.value, row.from);
    Ok(parsed
        .settings
        .iter()
        .map(row)
        .filter(|row| !row.ends_with(" default"))
        .collect())
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let file = "threshold = 0.1\nquiet = true\n[score]\nthreshold = 0.2\nwindow = \"mention\"\n";
    let of = |arguments: &[&str], variables: &[(&str, &str)]| run(arguments, variables, Some(file)).unwrap();
    let rest = ["window=\"mention\" config c.toml:5", "quiet=true config c.toml:2"].map(str::to_owned);
    let with = |first: &str| [vec![first.to_owned()], rest.to_vec()].concat();
    assert_eq!(of(&["score"], &[]), with("threshold=\"0.2\" config c.toml:4"));
    let general = ("CRAG_THRESHOLD", "0.3");
    assert_eq!(
        of(&["score"], &[general]),
        with("threshold=\"0.3\" environment CRAG_THRESHOLD")
    );
    let own = ("CRAG_SCORE_THRESHOLD", "0.4");
    assert_eq!(
        of(&["score"], &[general, own]),
        with("threshold=\"0.4\" environment CRAG_SCORE_THRESHOLD")
    );
    let empty = ("CRAG_SCORE_THRESHOLD", "");
    assert_eq!(
        of(&["score"], &[general, empty]),
        with("threshold=\"0.3\" environment CRAG_THRESHOLD")
    );
    assert_eq!(
        of(&["score", "--threshold", "0.5"], &[general, own]),
        with("threshold=\"0.5\" flag")
    );
    let without = run(&["score"], &[], Some("threshold = 0.10")).unwrap();
    assert_eq!(without, ["threshold=\"0.10\" config c.toml:1"], "as it is written");
    assert!(run(&["score"], &[], None).unwrap().is_empty());
}

#[test]
fn what_may_be_repeated_takes_lists_and_tables() {
    let field = |variables: &[(&str, &str)], file| run(&["score"], variables, file).unwrap();
    assert_eq!(
        field(&[], Some("[score]\nfield = [\"a=/b\", \"c=/d\"]")),
        ["field=[\"a=/b\",\"c=/d\"] config c.toml:2"]
    );
    assert_eq!(
        field(&[], Some("[score.field]\ntext = \"/b\"")),
        ["field=[\"text=/b\"] config c.toml:1"]
    );
    let one = [("CRAG_FIELD", "a,b")];
    assert_eq!(field(&one, None), ["field=[\"a,b\"] environment CRAG_FIELD"]);
    let two = [("CRAG_FIELD", r#"["a", "b"]"#)];
    assert_eq!(field(&two, None), ["field=[\"a\",\"b\"] environment CRAG_FIELD"]);
    assert_eq!(
        run(&["score", "--field", "x"], &two, None).unwrap(),
        ["field=[\"x\"] flag"],
        "a flag replaces the list"
    );
}

#[test]
fn switches_can_be_set_and_taken_back() {
    let offline = |value: &str| run(&["score"], &[("CRAG_OFFLINE", value)], Some("offline = true"));
    for value in ["1", "TRUE", "yes", "on"] {
        assert_eq!(offline(value).unwrap(), ["offline=true environment CRAG_OFFLINE"]);
    }
    for value in ["0", "false", "No", "off"] {
        assert_eq!(offline(value).unwrap(), ["offline=false environment CRAG_OFFLINE"]);
    }
    assert!(offline("maybe").unwrap_err().contains("CRAG_OFFLINE: expected 1, true"));
}

#[test]
fn one_flag_name_may_mean_different_things_to_two_subcommands() {
    let file = "[score]\nwindow = \"mention\"\n[extract]\nwindow = 2";
    assert_eq!(
        run(&["score"], &[], Some(file)).unwrap(),
        ["window=\"mention\" config c.toml:2"]
    );
    assert_eq!(
        run(&["extract"], &[], Some(file)).unwrap(),
        ["window=\"2\" config c.toml:4"]
    );
    let both = [("CRAG_WINDOW", "mention"), ("CRAG_EXTRACT_WINDOW", "3")];
    assert_eq!(
        run(&["extract"], &both, None).unwrap(),
        ["window=\"3\" environment CRAG_EXTRACT_WINDOW"]
    );
}

#[test]
fn variables_that_mean_nothing_are_found_and_what_was_meant_is_guessed_where_it_is_near() {
    let variables = [
        ("CRAG_TRESHOLD", "0.5"),
        ("CRAG_THRESHOLD", "0.5"),
        ("CRAG_SCORE_WINDOWS", "mention"),
        ("CRAG_WINDWO", ""),
        ("CRAG_EXTRACT_QUIET", "1"),
        ("CRAG_FORCE", "1"),
        ("CRAG_TEST_BINARY", "x"),
        ("HOME", "x"),
    ];
    let pairs = variables.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let found = unknown_variables(&command(), pairs.into_iter());
    let found: Vec<_> = found
        .iter()
        .map(|found| (&*found.name, found.meant.as_deref(), found.call_only.as_deref()))
        .collect();
    assert_eq!(
        found,
        [
            ("CRAG_TRESHOLD", Some("CRAG_THRESHOLD"), None),
            ("CRAG_SCORE_WINDOWS", Some("CRAG_SCORE_WINDOW"), None),
            ("CRAG_FORCE", None, Some("force")),
            ("CRAG_TEST_BINARY", None, None),
        ]
    );
}

#[test]
fn mistakes_name_their_place_and_the_way_out() {
    for (file, expected) in [
        (
            "[score]\nforce = true",
            "c.toml:2: \"force\" in [score]: --force is for the command line alone",
        ),
        (
            "drug = \"a\"",
            "c.toml:1: \"drug\": --drug is for the command line alone",
        ),
        (
            "\nmodel = 1\n[score]\n\ntreshold = 0.5",
            "c.toml:2: unknown key \"model\"; --help of a subcommand lists",
        ),
        (
            "[score]\n\ntreshold = 0.5",
            "c.toml:3: unknown key \"treshold\" in [score]; did you mean \"threshold\"?",
        ),
        (
            "[scroe]\nthreshold = 0.5",
            "c.toml:1: unknown key \"scroe\"; did you mean \"score\"?",
        ),
        (
            "max_line_byte = 1",
            "unknown key \"max_line_byte\"; did you mean \"max-line-bytes\"?",
        ),
        (
            "score = 1",
            "c.toml:1: expected a section [score], found a value of type integer",
        ),
        (
            "[score]\nthreshold = 7",
            "c.toml:2: invalid value '7' for '--threshold <threshold>': expected a probability",
        ),
        (
            "[score]\nwindow = \"x\"",
            "c.toml:2: invalid value 'x' for '--window <window>' [possible values: start, mention]",
        ),
        (
            "[score]\noffline = 1",
            "c.toml:2: expected true or false, found a value",
        ),
        (
            "[score]\nthreshold = [1]",
            "c.toml:2: expected a string, a number or a boolean, found an array",
        ),
        ("[score]\nthreshold = ", "c.toml:2: "),
        (
            "[score]\nmax-line-bytes = 1\nmax_line_bytes = 2",
            "c.toml:3: \"max-line-bytes\" is set in line 2 already",
        ),
        (
            "config = \"x\"",
            "c.toml:1: \"config\": --config is for the command line alone",
        ),
    ] {
        let found = run(&["score"], &[], Some(file)).unwrap_err();
        assert!(found.contains(expected), "{file:?}: {found}");
    }
    let found = run(&["score"], &[("CRAG_THRESHOLD", "x")], None).unwrap_err();
    assert!(
        found.starts_with("CRAG_THRESHOLD: invalid value 'x' for '--threshold"),
        "{found}"
    );
    // What is meant for another subcommand is no mistake.
    assert!(
        run(&["extract"], &[], Some("[score]\nthreshold = 7"))
            .unwrap()
            .is_empty()
    );
}
