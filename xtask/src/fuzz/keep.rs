//! Which inputs the repository keeps: few and short ones that together reach as much code as fits.
//!
//! The fuzzer says which edges each input reaches (the control file of a merge, `FuzzerMerge.cpp`); a greedy choice by
//! edges for each byte comes close to the best one.

use std::collections::{BinaryHeap, HashSet};
use std::path::{Path, PathBuf};

/// How many bytes a target's inputs may have together.
const BUDGET: usize = 96 << 10;
/// How many edges an input has to add.
const FEWEST: usize = 6;
/// What a file costs beside its bytes.
const FILE: usize = 2048;

/// An input and what it reaches.
#[derive(Default, Debug)]
struct Input {
    file: PathBuf,
    size: usize,
    edges: Vec<u32>,
}

/// The inputs to keep, of those in the control file of a merge that counts edges alone.
pub(super) fn choose(control: &str) -> Vec<PathBuf> {
    chosen(&read(control), BUDGET, FEWEST)
}

/// The number of inputs, a number that does not matter, their files; then what was started (`STARTED`, number, size), and
/// what it reached (`FT`, number, edges).
fn read(control: &str) -> Vec<Input> {
    let mut lines = control.lines();
    let count = lines.next().and_then(|count| count.trim().parse().ok()).unwrap_or(0);
    let files = lines.by_ref().skip(1).take(count);
    let mut inputs: Vec<Input> =
        files.map(|file| Input { file: Path::new(file).to_owned(), ..Input::default() }).collect();
    for line in lines {
        let mut words = line.split_whitespace();
        let (kind, number) = (words.next(), words.next().and_then(|number| number.parse::<usize>().ok()));
        let Some(input) = number.and_then(|number| inputs.get_mut(number)) else { continue };
        match kind {
            Some("STARTED") => input.size = words.next().and_then(|size| size.parse().ok()).unwrap_or(0),
            Some("FT") => input.edges = words.filter_map(|edge| edge.parse().ok()).collect(),
            _ => {}
        }
    }
    inputs
}

fn chosen(inputs: &[Input], budget: usize, fewest: usize) -> Vec<PathBuf> {
    let (mut reached, mut kept, mut left) = (HashSet::new(), Vec::new(), budget);
    // Worth falls as others are chosen, so an input is looked at again when it is the best one.
    let worth = |input: &Input, reached: &HashSet<u32>| {
        let new = input.edges.iter().filter(|edge| !reached.contains(*edge)).count();
        if new < fewest { 0 } else { (new << 20) / (input.size + FILE) }
    };
    let mut heap: BinaryHeap<(usize, usize)> =
        inputs.iter().enumerate().map(|(number, input)| (worth(input, &reached), number)).collect();
    while let Some((was, number)) = heap.pop() {
        let input = &inputs[number];
        let now = worth(input, &reached);
        if now == 0 || input.size > left {
            continue;
        }
        if now < was {
            heap.push((now, number));
            continue;
        }
        left -= input.size;
        reached.extend(input.edges.iter().copied());
        kept.push(input.file.clone());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_nothing_new_is_not_kept_nor_what_does_not_fit() {
        let control = "5\n0\na\nb\nc\nd\ne\nSTARTED 0 10\nFT 0 1 2 3\nSTARTED 1 1000\nFT 1 1 2 3 4\nSTARTED 2 20\n\
                       FT 2 2 3\nSTARTED 3 30\nFT 3 4 5\nSTARTED 4 5\n";
        let inputs = read(control);
        assert_eq!(inputs.iter().map(|input| input.size).collect::<Vec<_>>(), [10, 1000, 20, 30, 5]);
        assert_eq!(
            chosen(&inputs, 100, 1),
            ["a", "d"].map(PathBuf::from),
            "b is too long, c and e reach nothing new"
        );
        assert_eq!(chosen(&inputs, 20, 1), ["a"].map(PathBuf::from));
        assert_eq!(chosen(&inputs, 100, 3), ["a"].map(PathBuf::from), "d adds two edges");
    }
}
