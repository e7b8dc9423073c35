//! In which order the modules of a projection or classifier follow each other, and where the
//! activations between them belong.
//!
//! `nn.Sequential` numbers its children, so indices give the order, and an index that is missing
//! between two modules is a child without tensors: an activation or a dropout. Without indices the
//! widths must chain in exactly one way.

use super::HeadStep;

/// A named linear or norm whose place is not known yet.
#[derive(Clone, Debug)]
pub(super) struct Module {
    pub path: String,
    pub step: HeadStep,
}

/// What a part ends in.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// A classifier's bare logit.
    Logit,
    /// A projection's last module, or an activation behind it: which of them, where that is stated.
    Open(Option<bool>),
}

/// A part in order, and what about that its tensors do not tell, in words.
#[derive(Debug)]
pub(super) struct Ordered {
    pub steps: Vec<HeadStep>,
    /// Where an activation may stand elsewhere, or not at all: other indices would tell.
    pub guesses: Vec<String>,
    /// Whether there is one at the end: a statement would tell.
    pub end_guess: Option<String>,
}

/// Puts `modules` in order and inserts activations.
///
/// Between two linears there is exactly one activation: where the first index is missing, else just
/// before the second linear. `input` and `output` are the widths at both ends, where known.
/// The error is a reason without its part's name.
pub(super) fn steps(
    modules: Vec<Module>,
    input: Option<usize>,
    output: Option<usize>,
    end: End,
) -> Result<Ordered, String> {
    let mut guess = None;
    let ordered = match sequential_indices(&modules) {
        Some(numbered) => numbered,
        None => {
            let ordered = by_widths(modules, input, output)?;
            guess = scattered(&ordered);
            ordered.into_iter().map(|m| (None, m)).collect()
        }
    };
    check_chain(&ordered, input, output)?;
    let mut ordered = with_activations(ordered, end);
    ordered.guesses.extend(guess);
    Ok(ordered)
}

/// What is guessed where linear layers are put together that do not stand together: one may be of something else, or of nothing.
fn scattered(modules: &[Module]) -> Option<String> {
    let is_linear = |module: &&Module| matches!(module.step, HeadStep::Linear(_));
    if modules.iter().filter(is_linear).count() < 2 {
        return None;
    }
    fn parent(module: &Module) -> &str {
        module.path.rsplit_once('.').map_or("", |(parent, _)| parent)
    }
    let first = parent(modules.first()?);
    modules.iter().any(|module| parent(module) != first).then(|| {
        format!(
            "{} are taken to follow each other, as their widths allow, with an activation between two linear layers, and their names do \
             not say that they stand in one sequence",
            names(modules)
        )
    })
}

type Numbered = (Option<u64>, Module);

/// The modules by index, if all are children of one `Sequential`.
fn sequential_indices(modules: &[Module]) -> Option<Vec<Numbered>> {
    let mut parent = None;
    let mut numbered = Vec::new();
    for module in modules {
        let (prefix, index) = module.path.rsplit_once('.').unwrap_or(("", &module.path));
        if *parent.get_or_insert(prefix) != prefix {
            return None;
        }
        numbered.push((Some(index.parse::<u64>().ok()?), module.clone()));
    }
    numbered.sort_by_key(|(index, _)| *index);
    Some(numbered)
}

/// The one order in which the linears' widths chain, each norm behind the linear of its width.
fn by_widths(modules: Vec<Module>, input: Option<usize>, output: Option<usize>) -> Result<Vec<Module>, String> {
    let (linears, norms): (Vec<_>, Vec<_>) = modules.into_iter().partition(|m| matches!(m.step, HeadStep::Linear(_)));
    // Heads have two to four linears; more would make the search below long and the answer doubtful.
    if linears.len() > 6 {
        return Err(format!(
            "{} linear layers without Sequential indices are too many to order by width",
            linears.len()
        ));
    }
    let mut orders = Vec::new();
    extend_chain(&linears, &mut Vec::new(), input, output, &mut orders);
    let order = match orders.as_slice() {
        [order] => order,
        [] => {
            return Err(format!(
                "the widths of {} do not chain; is one missing?",
                names(&linears)
            ));
        }
        _ => {
            return Err(format!(
                "the order of {} is not clear from their widths; name them by Sequential index (0, 1, …)",
                names(&linears)
            ));
        }
    };
    let mut placed: Vec<Vec<Module>> = order.iter().map(|&i| vec![linears[i].clone()]).collect();
    for norm in norms {
        let HeadStep::Norm(role) = &norm.step else { continue };
        let fits: Vec<usize> = (0..placed.len())
            .filter(|&i| {
                placed[i].len() == 1
                    && matches!(&placed[i][0].step, HeadStep::Linear(l) if l.out_features == role.width)
            })
            .collect();
        match fits.as_slice() {
            &[i] => placed[i].push(norm),
            [] => {
                return Err(format!(
                    "layer norm \"{}\" is {} wide, and no linear layer before it is",
                    norm.path, role.width
                ));
            }
            _ => {
                return Err(format!(
                    "layer norm \"{}\" could follow several linear layers; name them by Sequential index (0, 1, …)",
                    norm.path
                ));
            }
        }
    }
    Ok(placed.into_iter().flatten().collect())
}

fn extend_chain(
    linears: &[Module],
    chain: &mut Vec<usize>,
    width: Option<usize>,
    output: Option<usize>,
    found: &mut Vec<Vec<usize>>,
) {
    if chain.len() == linears.len() {
        if output.is_none() || output == width {
            found.push(chain.clone());
        }
        return;
    }
    for (i, module) in linears.iter().enumerate() {
        let HeadStep::Linear(linear) = &module.step else {
            continue;
        };
        if !chain.contains(&i) && width.is_none_or(|w| w == linear.in_features) {
            chain.push(i);
            extend_chain(linears, chain, Some(linear.out_features), output, found);
            chain.pop();
        }
    }
}

fn check_chain(ordered: &[Numbered], input: Option<usize>, output: Option<usize>) -> Result<(), String> {
    let mut width = input;
    for (_, module) in ordered {
        let (takes, gives) = match &module.step {
            HeadStep::Linear(linear) => (linear.in_features, linear.out_features),
            HeadStep::Norm(norm) => (norm.width, norm.width),
            HeadStep::Activation => continue,
        };
        if let Some(width) = width
            && width != takes
        {
            return Err(format!(
                "\"{}\" takes {takes} numbers, what comes before it gives {width}; is a layer between them missing?",
                module.path
            ));
        }
        width = Some(gives);
    }
    match (width, output) {
        (Some(found), Some(expected)) if found != expected => {
            let last = ordered.last().map_or("", |(_, module)| &module.path);
            Err(format!(
                "expected {expected} output at the end, found {found}, of \"{last}\"; is the last layer missing?"
            ))
        }
        _ => Ok(()),
    }
}

fn with_activations(ordered: Vec<Numbered>, end: End) -> Ordered {
    let mut steps: Vec<HeadStep> = Vec::new();
    let mut guesses = Vec::new();
    // A norm without an index since the last linear.
    let mut norm: Option<String> = None;
    // An activation is owed from each linear on until it is placed.
    let mut owed = false;
    // Where indices have been missing since the last linear: before which modules.
    let mut gaps: Vec<String> = Vec::new();
    let mut last: Option<(Option<u64>, String)> = None;
    for (index, module) in ordered {
        let is_linear = matches!(module.step, HeadStep::Linear(_));
        let has_linear = steps.iter().any(|step| matches!(step, HeadStep::Linear(_)));
        let gap = matches!((&last, index), (Some((Some(last), _)), Some(index)) if index > last + 1);
        if gap && has_linear {
            gaps.push(module.path.clone());
        }
        if owed && (gap || is_linear) {
            match (&last, &norm) {
                (Some((Some(_), before)), _) if !gap => guesses.push(format!(
                    "no index is missing between \"{before}\" and \"{}\", and an activation is taken to stand there all the same",
                    module.path
                )),
                // Without indices there is nothing to be missing, and a norm has two sides.
                (Some((None, _)), Some(norm)) => guesses.push(format!(
                    "no index tells on which side of \"{norm}\" the activation before \"{}\" stands, and it is taken to stand \
                     behind it",
                    module.path
                )),
                _ => {}
            }
            steps.push(HeadStep::Activation);
            owed = false;
        }
        if is_linear {
            if gaps.len() > 1 {
                guesses.push(format!(
                    "indices are missing before \"{}\", and the activation is taken to be the first of them",
                    gaps.join("\" and before \"")
                ));
            }
            gaps.clear();
            owed = true;
            norm = None;
        } else if index.is_none() {
            norm = Some(module.path.clone());
        }
        last = Some((index, module.path));
        steps.push(module.step);
    }
    let mut end_guess = None;
    if let (End::Open(stated), Some((index, last))) = (end, last) {
        let is_linear = |step: &HeadStep| matches!(step, HeadStep::Linear(_));
        let after_linear = steps.iter().rposition(is_linear).map_or(steps.len(), |at| at + 1);
        let in_gap = (after_linear..steps.len()).find(|&at| matches!(steps[at], HeadStep::Activation));
        match (stated, in_gap) {
            // Then a dropout stands in the gap.
            (Some(true), Some(at)) => {
                let activation = steps.remove(at);
                steps.push(activation);
            }
            (Some(true), None) => steps.push(HeadStep::Activation),
            (Some(false), None) => guesses.extend(norm.filter(|_| owed).map(|norm| {
                format!("no index tells whether an activation stands before \"{norm}\", and none is taken to")
            })),
            (Some(false), Some(_)) => {}
            (None, Some(_)) => {
                end_guess = gaps.first().map(|gap| {
                    format!(
                        "an index is missing before \"{gap}\" and may be missing at the end, and the activation is taken to be the \
                         former"
                    )
                });
            }
            // The card's.
            (None, None) if index.is_some() && matches!(&steps[..], [HeadStep::Linear(_), HeadStep::Norm(_)]) => {
                steps.push(HeadStep::Activation);
            }
            (None, None) => {
                let has_norm = steps.iter().any(|step| matches!(step, HeadStep::Norm(_)));
                // A linear layer that stands by itself in the model's code is more often all there is.
                let ends_active = owed && (index.is_some() || has_norm);
                let or_before = norm.map_or(String::new(), |norm| format!(" (or before \"{norm}\")"));
                let taken = if ends_active {
                    "one is taken to"
                } else {
                    "none is taken to"
                };
                end_guess = Some(format!(
                    "nothing tells whether an activation stands behind \"{last}\"{or_before}, and {taken}"
                ));
                steps.extend(ends_active.then_some(HeadStep::Activation));
            }
        }
    }
    Ordered {
        steps,
        guesses,
        end_guess,
    }
}

fn names(modules: &[Module]) -> String {
    modules
        .iter()
        .map(|m| format!("\"{}\"", m.path))
        .collect::<Vec<_>>()
        .join(", ")
}
