//! The records that figures are computed from: probability, label and document, sorted once and summed by document.

use super::sum::Sum;

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
    /// Of each document's records.
    of_documents: Vec<Totals>,
}

/// What records add up to that need not be in order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub positives: u64,
    pub negatives: u64,
    /// Of what lies between probability and label.
    pub squares: f64,
    /// Of minus the logarithms of the probabilities that labels got.
    pub log_losses: f64,
}

impl Totals {
    /// The mean square of what lies between probability and label; none without records.
    pub fn brier(&self) -> Option<f64> {
        self.mean(self.squares)
    }

    /// The mean log loss; none without records.
    pub fn log_loss(&self) -> Option<f64> {
        self.mean(self.log_losses)
    }

    fn mean(&self, sum: f64) -> Option<f64> {
        let records = self.positives + self.negatives;
        (records > 0).then(|| sum / records as f64)
    }
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
        let mut of_documents = vec![(Totals::default(), Sum::default(), Sum::default()); documents];
        for record in &records {
            let (totals, squares, log_losses) = &mut of_documents[record.document as usize];
            match record.label {
                true => totals.positives += 1,
                false => totals.negatives += 1,
            }
            let error = record.probability - f64::from(u8::from(record.label));
            squares.add(error * error);
            log_losses.add(log_loss(record));
        }
        let of_documents = of_documents.into_iter().map(|(totals, squares, log_losses)| Totals {
            squares: squares.value(),
            log_losses: log_losses.value(),
            ..totals
        });
        Self {
            of_documents: of_documents.collect(),
            records,
        }
    }

    pub fn records(&self) -> &[Judged] {
        &self.records
    }

    /// How many documents there are to draw from.
    pub fn documents(&self) -> usize {
        self.of_documents.len()
    }

    /// The totals of all records, each counted as often as `weight` says of its document.
    pub fn totals(&self, weight: impl Fn(u32) -> u64) -> Totals {
        let mut totals = Totals::default();
        let (mut squares, mut log_losses) = (Sum::default(), Sum::default());
        for (document, of_document) in (0..).zip(&self.of_documents) {
            let weight = weight(document);
            totals.positives += weight * of_document.positives;
            totals.negatives += weight * of_document.negatives;
            squares.add(weight as f64 * of_document.squares);
            log_losses.add(weight as f64 * of_document.log_losses);
        }
        Totals {
            squares: squares.value(),
            log_losses: log_losses.value(),
            ..totals
        }
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
        Self::new(records.collect(), self.documents())
    }
}

fn log_loss(record: &Judged) -> f64 {
    let given = match record.label {
        true => record.probability,
        false => 1.0 - record.probability,
    };
    -given.clamp(CLIP, 1.0 - CLIP).ln()
}
