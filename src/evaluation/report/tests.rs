use super::*;
use crate::evaluation::{Origin, Request, Sample, Threshold, evaluate, sample::Judged};

const PLAN: Plan = Plan {
    resamples: 50,
    confidence: 0.95,
    seed: 0,
};

fn run(name: &str, records: impl IntoIterator<Item = (f64, bool)>, texts: Vec<String>) -> Run {
    let records: Vec<Judged> = records
        .into_iter()
        .enumerate()
        .map(|(i, (probability, label))| Judged {
            probability,
            label,
            document: i as u32,
        })
        .collect();
    let documents = records.len();
    let sample = Sample::new(records, documents);
    let request = Request {
        threshold: Threshold {
            value: 0.5,
            origin: Origin::Given,
        },
        recall: Some(0.9),
        precision: None,
        bins: 10,
    };
    let mistake = Mistake {
        place: "in.jsonl:3".into(),
        id: Some("<id>".into()),
        document: None,
        label: false,
        probability: 0.9,
        drug: "<drug>".into(),
        adr: "a&b".into(),
        texts,
        key: None,
        order: 0,
    };
    Run {
        name: name.to_owned(),
        curves: Curves::of(&sample, 10),
        evaluation: evaluate(&sample, &request, &PLAN, &|| ()),
        mistakes: [vec![mistake], vec![]],
        notes: vec![],
    }
}

fn page(runs: &[Run]) -> String {
    let report = Report {
        runs,
        differences: None,
        plan: PLAN,
        bins: 10,
        unit: "documents",
        notes: &[],
    };
    report.html()
}

fn mixed(n: usize) -> impl Iterator<Item = (f64, bool)> {
    (0..n).map(|i| ((i * 7919 % 1009) as f64 / 1009.0, i * 7919 % 1009 + i % 400 > 700))
}

#[test]
fn wild_texts_are_only_ever_text() {
    let wild = "</p><script>alert(1)</script> <drug> and a&b \u{202e}txet\u{0}\u{1b}[31m 'x' \"y\" <!--".to_owned();
    let html = page(&[run("</title><script>alert(2)</script>", mixed(50), vec![wild])]);
    assert!(!html.contains("<script"), "a script tag came through");
    assert!(!html.contains("<drug>") && !html.contains("<!--"));
    assert!(html.contains("<mark class=\"drug\">&lt;drug&gt;</mark>"));
    assert!(html.contains("<mark class=\"adr\">a&amp;b</mark>"));
    for hidden in ['\u{202e}', '\u{0}', '\u{1b}'] {
        assert!(!html.contains(hidden), "{hidden:?}");
    }
}

#[test]
fn the_page_fetches_nothing() {
    let html = page(&[run("a", mixed(200), vec![])]);
    for outside in ["http://", "https://", "url(", "@import", "src=", "href="] {
        assert!(!html.contains(outside), "{outside}");
    }
}

#[test]
fn a_page_is_known_by_its_beginning() {
    assert!(is_page(page(&[run("a", mixed(20), vec![])]).as_bytes()));
    assert!(!is_page(
        b"<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>mine</title>"
    ));
}

#[test]
fn curves_of_many_records_stay_small() {
    let html = page(&[run("a", mixed(200_000), vec![])]);
    assert!(html.len() < 300_000, "{} bytes", html.len());
    assert!(!html.contains("NaN") && !html.contains("inf "));
}

#[test]
fn one_class_and_constant_scores_still_make_a_page() {
    for records in [
        vec![(0.5, true); 9],
        vec![(0.5, false); 9],
        vec![(0.0, true)],
        vec![(0.3, true), (0.3, false)],
    ] {
        let html = page(&[run("a", records, vec![])]);
        assert!(!html.contains("NaN"));
        assert!(html.ends_with("</html>"));
    }
    assert!(page(&[run("a", vec![(0.5, false); 9], vec![])]).contains("not defined"));
}

#[test]
fn thousands_have_commas() {
    for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")] {
        assert_eq!(thousands(number), text);
    }
}
