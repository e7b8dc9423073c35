//! Sums whose error does not grow with what is summed.

/// Neumaier's compensated sum (1974).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    sum: f64,
    compensation: f64,
}

impl Sum {
    pub fn add(&mut self, value: f64) {
        let sum = self.sum + value;
        self.compensation += match self.sum.abs() >= value.abs() {
            true => (self.sum - sum) + value,
            false => (value - sum) + self.sum,
        };
        self.sum = sum;
    }

    pub fn value(self) -> f64 {
        self.sum + self.compensation
    }
}
