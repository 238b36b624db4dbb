//! Generations of indexes and ids across tables of other lengths.
//!
//! Sockets and connections remember an id beyond its end, and its generation. The element goes with a table that becomes
//! shorter; when the table grows again, its new user must have another generation. So element 0, which stands for nothing, keeps the
//! highest of those that went, and new elements go on from there.

use proxy_common::{EndpointState, Service};

use super::mapped::Mapped;

/// An element that counts its uses.
pub(super) trait Counting: bytemuck::Pod {
    /// How often it was used.
    fn generation(&self) -> u16;
    /// An unused element that was used so often.
    fn used(generation: u16) -> Self;
}

impl Counting for Service {
    fn generation(&self) -> u16 {
        self.generation
    }

    fn used(generation: u16) -> Self {
        Self { generation, ..bytemuck::Zeroable::zeroed() }
    }
}

impl Counting for EndpointState {
    fn generation(&self) -> u16 {
        self.generation
    }

    fn used(generation: u16) -> Self {
        Self { slot: 0, generation, bits: 0 }
    }
}

/// Copies a table to one of another length, which no reader is led to yet.
pub(super) fn copy<T: Counting>(from: &Mapped<T>, to: &Mapped<T>) {
    to.copy_from(from);
    let generation = |index| from.load(index).map_or(0, |element| element.generation());
    let gone = (to.len()..from.len()).map(generation).max().unwrap_or_default();
    let highest = generation(0).max(gone);
    if highest != 0 {
        to.store(0, &T::used(highest));
        (from.len()..to.len()).for_each(|index| to.store(index, &T::used(highest)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_that_went_and_came_back_has_another_generation() {
        let table = |length| Mapped::<EndpointState>::private(length).expect("memory");
        let long = table(8);
        for (id, generation) in [(1, 9), (2, 1), (6, 4), (7, 3)] {
            long.store(id, &EndpointState { slot: id, generation, bits: 1 });
        }
        let short = table(4);
        copy(&long, &short);
        let generations = |table: &Mapped<EndpointState>| {
            (0..table.len()).map(|id| table.load(id).expect("there").generation).collect::<Vec<_>>()
        };
        assert_eq!(generations(&short), [4, 9, 1, 0]);
        let again = table(6);
        copy(&short, &again);
        assert_eq!(generations(&again), [4, 9, 1, 0, 4, 4]);
        assert!(again.load(5).is_some_and(|state| state.bits == 0 && state.slot == 0));
    }
}
