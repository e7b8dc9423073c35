//! The records that figures are computed from: probability, label and document, sorted once.

/// One usable record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// From 0 to 1.
    pub probability: f64,
    pub label: bool,
    /// Number of its document, below [`Sample::documents`].
    pub document: u32,
}

/// Records from the highest probability to the lowest.
#[derive(Clone, Debug)]
pub struct Sample {
    records: Vec<Judged>,
    /// Of each record, minus the logarithm of the probability that its label got.
    log_losses: Vec<f64>,
    documents: usize,
}

/// Probabilities are held this far from 0 and 1 in logarithms, as scikit-learn's `log_loss` does.
const CLIP: f64 = f64::EPSILON;

impl Sample {
    pub fn new(mut records: Vec<Judged>, documents: usize) -> Self {
        records.sort_by(|a, b| {
            b.probability
                .total_cmp(&a.probability)
                .then(b.label.cmp(&a.label))
                .then(a.document.cmp(&b.document))
        });
        let log_losses = records.iter().map(log_loss).collect();
        Self {
            records,
            log_losses,
            documents,
        }
    }

    pub fn records(&self) -> &[Judged] {
        &self.records
    }

    pub fn log_losses(&self) -> &[f64] {
        &self.log_losses
    }

    /// How many documents there are to draw from.
    pub fn documents(&self) -> usize {
        self.documents
    }

    pub fn positives(&self) -> usize {
        self.records.iter().filter(|record| record.label).count()
    }

    /// The same records with other probabilities.
    pub fn mapped(&self, map: impl Fn(&Judged) -> f64) -> Self {
        let records = self.records.iter().map(|record| Judged {
            probability: map(record),
            ..*record
        });
        Self::new(records.collect(), self.documents)
    }
}

fn log_loss(record: &Judged) -> f64 {
    let given = match record.label {
        true => record.probability,
        false => 1.0 - record.probability,
    };
    -given.clamp(CLIP, 1.0 - CLIP).ln()
}
