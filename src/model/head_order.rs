//! In which order the modules of a projection or classifier follow each other, and where the
//! activations between them belong.
//!
//! `nn.Sequential` numbers its children, so indices give the order, and an index that is missing
//! between two modules is a child without tensors: an activation or a dropout. Without indices the
//! widths must chain in exactly one way.

use super::roles::HeadStep;

/// A named linear or norm whose place is not known yet.
#[derive(Clone, Debug)]
pub(super) struct Module {
    pub path: String,
    pub step: HeadStep,
}

/// Puts `modules` in order and inserts activations.
///
/// Between two linears there is exactly one activation: where the first index is missing, else just
/// before the second linear. `ends_active` adds one behind the last linear as well (projections end
/// in an activation, classifiers in a bare logit). `input` and `output` are the widths at both ends,
/// where known. Beside the steps is said where indices leave another place for an activation, or none.
/// The error is a reason without its part's name.
pub(super) fn steps(
    modules: Vec<Module>,
    input: Option<usize>,
    output: Option<usize>,
    ends_active: bool,
) -> Result<(Vec<HeadStep>, Vec<String>), String> {
    let numbered = sequential_indices(&modules);
    let ordered = match numbered {
        Some(numbered) => numbered,
        None => by_widths(modules, input, output)?
            .into_iter()
            .map(|m| (None, m))
            .collect(),
    };
    check_chain(&ordered, input, output)?;
    Ok(with_activations(ordered, ends_active))
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

fn with_activations(ordered: Vec<Numbered>, ends_active: bool) -> (Vec<HeadStep>, Vec<String>) {
    let mut steps: Vec<HeadStep> = Vec::new();
    let mut guesses = Vec::new();
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
            // Without indices there is nothing to be missing.
            if let (false, Some((Some(_), before))) = (gap, &last) {
                guesses.push(format!(
                    "no index is missing between \"{before}\" and \"{}\", and an activation is taken to stand there all the same",
                    module.path
                ));
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
        }
        last = Some((index, module.path));
        steps.push(module.step);
    }
    if ends_active {
        if owed {
            steps.push(HeadStep::Activation);
        } else if let Some(gap) = gaps.first() {
            guesses.push(format!(
                "an index is missing before \"{gap}\" and may be missing at the end, and the activation is taken to be the former"
            ));
        }
    }
    (steps, guesses)
}

fn names(modules: &[Module]) -> String {
    modules
        .iter()
        .map(|m| format!("\"{}\"", m.path))
        .collect::<Vec<_>>()
        .join(", ")
}
