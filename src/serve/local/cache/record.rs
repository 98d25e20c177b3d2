//! What a record in shared memory says of a stored response beside its body: written as numbers of 64 bits, then bytes. Read by the same
//! build of the same server only; nevertheless nothing is believed that doesn't add up.

use std::time::Duration;

use super::entry::{Entry, Guard};
use super::freshness::Freshness;
use super::key::Vary;
use super::rules::Class;
use crate::reactor::clock::Instant;

/// A stored response without its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    /// Primary key.
    pub key: &'a [u8],
    /// Status code.
    pub status: u16,
    /// How fresh it is.
    pub freshness: Freshness,
    /// Whether it may be used for requests with `Authorization`.
    pub public: bool,
    /// Listener, scheme, class.
    pub guard: Guard,
    /// The lists of its [`Vary`].
    pub vary: (&'a [u8], &'a [u8]),
    /// Secondary key.
    pub secondary: &'a [u8],
    /// Status line and field lines.
    pub head: &'a [u8],
    /// Content-Length, where there is one.
    pub length: Option<u64>,
}

const PUBLIC: u64 = 1;
const HTTPS: u64 = 2;
const STRICT: u64 = 4;
const LENGTH: u64 = 8;
const CLASSES: [Class; 3] = [Class::Get, Class::Head, Class::Options];

impl<'a> Stored<'a> {
    /// Appends it.
    pub fn append(&self, out: &mut Vec<u8>) {
        let Freshness { lifetime, initial_age, at, while_revalidate, if_error, strict } = self.freshness;
        let flag = |is: bool, flag: u64| if is { flag } else { 0 };
        let flags = flag(self.public, PUBLIC)
            | flag(self.guard.https, HTTPS)
            | flag(strict, STRICT)
            | flag(self.length.is_some(), LENGTH);
        let class = CLASSES.iter().position(|class| *class == self.guard.class).unwrap_or(CLASSES.len());
        let parts = self.parts();
        let numbers = [
            flags | u64::from(self.status) << 8 | u64::from(self.guard.listener) << 24 | (class as u64) << 40,
            nanoseconds(lifetime),
            nanoseconds(initial_age),
            at.as_nanos(),
            nanoseconds(while_revalidate),
            nanoseconds(if_error),
            self.length.unwrap_or(0),
        ];
        let lengths = parts.map(|part| part.len() as u64);
        numbers.into_iter().chain(lengths).for_each(|number| out.extend_from_slice(&number.to_ne_bytes()));
        parts.iter().for_each(|part| out.extend_from_slice(part));
    }

    fn parts(&self) -> [&'a [u8]; 5] {
        [self.key, self.vary.0, self.vary.1, self.secondary, self.head]
    }

    /// Bytes that [`Stored::append`] appends.
    pub fn bytes(&self) -> usize {
        12 * 8 + self.parts().iter().map(|part| part.len()).sum::<usize>()
    }

    /// Reads what was appended, and nothing else.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut numbers = [0; 12];
        for number in &mut numbers {
            let (first, behind) = rest.split_first_chunk()?;
            *number = u64::from_ne_bytes(*first);
            rest = behind;
        }
        let [flags, lifetime, initial_age, at, while_revalidate, if_error, length, lengths @ ..] = numbers;
        let mut parts: [&[u8]; 5] = [&[]; 5];
        for (part, length) in parts.iter_mut().zip(lengths) {
            (*part, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        }
        let [key, names, cookies, secondary, head] = parts;
        let class = *CLASSES.get(usize::try_from(flags >> 40).ok()?)?;
        rest.is_empty().then_some(Self {
            key,
            status: (flags >> 8) as u16,
            freshness: Freshness {
                lifetime: Duration::from_nanos(lifetime),
                initial_age: Duration::from_nanos(initial_age),
                at: Instant::from_nanos(at),
                while_revalidate: Duration::from_nanos(while_revalidate),
                if_error: Duration::from_nanos(if_error),
                strict: flags & STRICT != 0,
            },
            public: flags & PUBLIC != 0,
            guard: Guard { listener: (flags >> 24) as u16, https: flags & HTTPS != 0, class },
            vary: (names, cookies),
            secondary,
            head,
            length: (flags & LENGTH != 0).then_some(length),
        })
    }

    /// What it depends on.
    pub fn vary(&self) -> Vary {
        Vary::of_parts(self.vary)
    }

    /// Whether it is of the same requests as an entry.
    pub fn is_of_the_same(&self, key: &[u8], entry: &Entry) -> bool {
        let other = entry.stored(key);
        self.key == key && self.guard == other.guard && self.vary == other.vary && self.secondary == other.secondary
    }
}

/// Some centuries at most, which is as good as for ever.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..40)
    }

    proptest! {
        /// What is written is read; whatever else is read is refused or adds up.
        #[test]
        fn what_is_written_is_read(
            parts in [bytes(), bytes(), bytes(), bytes(), bytes()],
            numbers in any::<[u64; 5]>(),
            small in any::<(u16, u16, [bool; 3])>(),
            class in 0..3usize,
            length in any::<Option<u64>>(),
            at in any::<usize>(),
            to in any::<u8>(),
        ) {
            let (status, listener, [public, https, strict]) = small;
            let [lifetime, initial_age, while_revalidate, if_error] =
                [0, 1, 2, 3].map(|number: usize| Duration::from_nanos(numbers[number]));
            let stored = Stored {
                key: &parts[0],
                status,
                freshness: Freshness {
                    lifetime,
                    initial_age,
                    at: Instant::from_nanos(numbers[4]),
                    while_revalidate,
                    if_error,
                    strict,
                },
                public,
                guard: Guard { listener, https, class: CLASSES[class] },
                vary: (&parts[1], &parts[2]),
                secondary: &parts[3],
                head: &parts[4],
                length,
            };
            let mut out = Vec::new();
            stored.append(&mut out);
            prop_assert_eq!(out.len(), stored.bytes());
            prop_assert_eq!(Stored::read(&out), Some(stored));
            let end = at % out.len();
            prop_assert!(Stored::read(&out[..end]).is_none());
            out[end] = to;
            if let Some(other) = Stored::read(&out) {
                prop_assert_eq!(other.bytes(), out.len());
            }
        }
    }
}
