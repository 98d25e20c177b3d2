//! A binary heap whose members know where they stand, so that any of them can be removed or moved in O(log n).
//!
//! Members are numbers; the heap tells their owner each time one has a new place (`placed(member, place)`).

/// What members are ordered by, the smallest first; then the older one.
pub type Key = (i64, u64);

/// The place of a member that isn't in a heap.
pub const NOWHERE: u32 = u32::MAX;

/// The heap.
#[derive(Debug, Default)]
pub struct Heap {
    members: Vec<(Key, u32)>,
}

impl Heap {
    /// The smallest key and whose it is.
    pub fn first(&self) -> Option<(Key, u32)> {
        self.members.first().copied()
    }

    /// Gives back the memory of a heap that has been large.
    pub fn shrink(&mut self, kept: usize) {
        if self.members.capacity() > kept {
            self.members.shrink_to(kept);
        }
    }

    /// Puts a member in.
    pub fn insert(&mut self, key: Key, member: u32, placed: impl FnMut(u32, u32)) {
        self.members.push((key, member));
        self.rise(self.members.len() - 1, placed);
    }

    /// Takes the member at `place` out; its owner is told nothing about it.
    pub fn remove(&mut self, place: u32, placed: impl FnMut(u32, u32)) {
        let place = place as usize;
        let removed = self.members.swap_remove(place);
        if let Some(moved) = self.members.get(place) {
            if moved.0 < removed.0 { self.rise(place, placed) } else { self.sink(place, placed) }
        }
    }

    /// Gives the member at `place` another key.
    pub fn change(&mut self, place: u32, key: Key, placed: impl FnMut(u32, u32)) {
        let place = place as usize;
        let before = std::mem::replace(&mut self.members[place].0, key);
        if key == before {
            return;
        }
        if key < before { self.rise(place, placed) } else { self.sink(place, placed) }
    }

    fn rise(&mut self, mut place: usize, mut placed: impl FnMut(u32, u32)) {
        let member = self.members[place];
        while place > 0 {
            let above = (place - 1) / 2;
            if self.members[above].0 <= member.0 {
                break;
            }
            self.members[place] = self.members[above];
            placed(self.members[place].1, place as u32);
            place = above;
        }
        self.members[place] = member;
        placed(member.1, place as u32);
    }

    fn sink(&mut self, mut place: usize, mut placed: impl FnMut(u32, u32)) {
        let member = self.members[place];
        loop {
            let mut below = 2 * place + 1;
            if below >= self.members.len() {
                break;
            }
            if below + 1 < self.members.len() && self.members[below + 1].0 < self.members[below].0 {
                below += 1;
            }
            if member.0 <= self.members[below].0 {
                break;
            }
            self.members[place] = self.members[below];
            placed(self.members[place].1, place as u32);
            place = below;
        }
        self.members[place] = member;
        placed(member.1, place as u32);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is put in, moved and taken out: the first is the smallest, and everybody is where it was said to be.
        #[test]
        fn the_smallest_is_first(steps in proptest::collection::vec((0u8..3, any::<u8>(), 0u8..24), 1..300)) {
            let (mut heap, mut places, mut keys) = (Heap::default(), vec![NOWHERE; 24], BTreeMap::new());
            for (sequence, (what, key, member)) in steps.into_iter().enumerate() {
                let (member, key) = (u32::from(member), (i64::from(key), sequence as u64));
                let place = places[member as usize];
                let placed = |member: u32, place| places[member as usize] = place;
                match what {
                    0 if place == NOWHERE => {
                        heap.insert(key, member, placed);
                        keys.insert(member, key);
                    }
                    1 if place != NOWHERE => {
                        heap.change(place, key, placed);
                        keys.insert(member, key);
                    }
                    2 if place != NOWHERE => {
                        heap.remove(place, placed);
                        places[member as usize] = NOWHERE;
                        keys.remove(&member);
                    }
                    _ => {}
                }
                let smallest = keys.iter().map(|(member, key)| (*key, *member)).min();
                prop_assert_eq!(heap.first(), smallest);
                for member in keys.keys() {
                    prop_assert_eq!(heap.members[places[*member as usize] as usize].1, *member);
                }
            }
        }
    }
}
