//! The two losses of the card's recipe.

use candle_core::{D, Result, Tensor, bail};

/// Added to the logit of a candidate that must not count as a negative.
const EXCLUDED: f32 = -1e9;

/// InfoNCE (van den Oord et al., arXiv:1807.03748) over cosines, in both directions.
///
/// `drug`: `[D, F]`, `adr`: `[A, F]`; row `i` of both belongs to pair `i` for the first `pairs` rows, the rest are
/// further negatives. `excluded(i, j)` says which drug row `i` and adr row `j` are related and so no negatives.
pub fn contrastive(
    drug: &Tensor,
    adr: &Tensor,
    pairs: usize,
    temperature: f64,
    excluded: impl Fn(usize, usize) -> bool,
) -> Result<Tensor> {
    let (drugs, adrs) = (drug.dim(0)?, adr.dim(0)?);
    if pairs == 0 || drugs < pairs || adrs < pairs {
        bail!("contrastive loss: {pairs} pairs among {drugs} drug and {adrs} reaction contexts")
    }
    let (drug, adr) = (normalized(drug)?, normalized(adr)?);
    let direction = |anchors: &Tensor, candidates: &Tensor, related: &dyn Fn(usize, usize) -> bool| {
        let count = candidates.dim(0)?;
        let logits = (anchors.narrow(0, 0, pairs)?.matmul(&candidates.t()?)? / temperature)?;
        let bias = (0..pairs * count).map(|at| match (at / count, at % count) {
            (i, j) if i != j && related(i, j) => EXCLUDED,
            _ => 0.0,
        });
        let bias = Tensor::from_vec(bias.collect::<Vec<f32>>(), (pairs, count), anchors.device())?;
        let own = Tensor::arange(0u32, pairs as u32, anchors.device())?.unsqueeze(1)?;
        let log_shares = candle_nn::ops::log_softmax(&(logits + bias)?, D::Minus1)?;
        log_shares.gather(&own, 1)?.mean_all()?.neg()
    };
    let forward = direction(&drug, &adr, &|i, j| excluded(i, j))?;
    let backward = direction(&adr, &drug, &|j, i| excluded(i, j))?;
    (forward + backward)? * 0.5
}

/// Rows at length 1.
fn normalized(x: &Tensor) -> Result<Tensor> {
    x.broadcast_div(&(x.sqr()?.sum_keepdim(D::Minus1)? + 1e-12)?.sqrt()?)
}

/// Binary focal loss (Lin et al., arXiv:1708.02002): the mean of `-a_t (1 - p_t)^gamma log p_t`, where `a_t` is
/// `alpha` for a positive and `1 - alpha` for a negative.
///
/// `logits`: `[N]`. Finite for every finite logit.
pub fn focal(logits: &Tensor, labels: &[bool], gamma: f64, alpha: f64) -> Result<Tensor> {
    if logits.dims() != [labels.len()] || labels.is_empty() {
        bail!("focal loss: {} labels for {:?} logits", labels.len(), logits.shape())
    }
    let per_label = |positive: f32, negative: f32| {
        let values = labels.iter().map(|label| if *label { positive } else { negative });
        Tensor::from_vec(values.collect::<Vec<f32>>(), labels.len(), logits.device())
    };
    let signed = (logits * per_label(1.0, -1.0)?)?;
    let log_true = log_sigmoid(&signed)?;
    // (1 - p_t)^gamma without the loss of digits of 1 - p_t.
    let focus = (log_sigmoid(&signed.neg()?)? * gamma)?.exp()?;
    let weights = per_label(alpha as f32, (1.0 - alpha) as f32)?;
    (weights * focus)?.mul(&log_true)?.mean_all()?.neg()
}

/// `min(x, 0) - log(1 + e^-|x|)`
fn log_sigmoid(x: &Tensor) -> Result<Tensor> {
    let tail = (x.abs()?.neg()?.exp()? + 1.0)?.log()?;
    x.neg()?.relu()?.neg()? - tail
}
