//! What must hold of pair records out of annotated documents, whatever the documents are.

use crag::corpora::{Options, Sources, run};

/// Runs once, checks what came out, and gives how many records that was.
pub fn check(sources: Sources, options: &Options) -> usize {
    let mut output = Vec::new();
    let mut reported = 0u64;
    let summary = run(sources, &mut output, options, &mut |problem| {
        reported += 1;
        let message = problem.to_string();
        assert!(!message.contains('\n') && message.len() < 5000, "{message}");
    })
    .expect("nothing ends the run");
    assert_eq!(summary.problems.values().sum::<u64>(), reported);
    let text = String::from_utf8(output).expect("records are UTF-8");
    for line in text.lines() {
        let record: serde_json::Value = serde_json::from_str(line).expect("records are JSON");
        let characters: Vec<char> = record["text"].as_str().unwrap().chars().collect();
        for side in ["drug", "adr"] {
            let [start, end] = [0, 1].map(|i| record[format!("{side}_span")][i].as_u64().unwrap() as usize);
            let slice: String = characters[start..end].iter().collect();
            assert_eq!(record[side].as_str().unwrap(), slice);
            assert!(!slice.trim().is_empty());
        }
    }
    assert_eq!(summary.pairs as usize, text.lines().count());
    text.lines().count()
}
