//! Requests that wait without a worker: which channels they listen to, what ends their wait, and what was lately announced.
//!
//! An application parks a request by `X-WSGo-Park: channel, channel` in its response, which is then not sent. It is ended by a
//! [`Notice`] on one of its channels, by its time-out, or by its client's going away, whichever is first.
//!
//! A notice may come while the application still runs that is about to park: [`Recent`] remembers the last ones, each
//! request remembers the last notice before its start, and what lies between is looked at when it is parked.
//!
//! Pure: it reads no clock and knows requests by their tokens only.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use slab::Slab;

use crate::limits;
use crate::reactor::Token;

/// What becomes of a parked request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The connection is closed.
    Disconnect,
    /// The application is called again, with `HTTP_X_WSGO_PARK_ARG`.
    Retry,
    /// 204.
    NoContent,
    /// 504.
    GatewayTimeout,
}

impl Action {
    /// By the number that applications know it by: what isn't one of them is a 504, as in wsgo.
    pub fn from_number(number: i64) -> Self {
        match number {
            0 => Action::Disconnect,
            1 => Action::Retry,
            2 => Action::NoContent,
            _ => Action::GatewayTimeout,
        }
    }

    /// That number.
    pub fn number(self) -> u8 {
        match self {
            Action::Disconnect => 0,
            Action::Retry => 1,
            Action::NoContent => 2,
            Action::GatewayTimeout => 3,
        }
    }

    fn from_name(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"disconnect" => Action::Disconnect,
            b"retry" => Action::Retry,
            b"http-204" => Action::NoContent,
            b"http-504" => Action::GatewayTimeout,
            _ => return None,
        })
    }
}

/// What an application wants with a request that it parks.
#[derive(Debug, PartialEq, Eq)]
pub struct Wish<'a> {
    /// Channels, each once; without any only the time-out ends the wait.
    pub channels: Vec<&'a [u8]>,
    /// How long it waits at most.
    pub timeout: Duration,
    /// What happens then.
    pub action: Action,
    /// Whether there was an X-WSGo-Park-Timeout that can't be understood: the default counts then.
    pub timeout_is_bad: bool,
}

/// Reads X-WSGo-Park and X-WSGo-Park-Timeout. `None`: too many channels, or their names are too long.
pub fn wish<'a>(channels: &'a [u8], timeout: Option<&[u8]>) -> Option<Wish<'a>> {
    let mut names: Vec<&[u8]> = split(channels).collect();
    if names.iter().map(|name| name.len()).sum::<usize>() > limits::PARK_CHANNELS_BYTES_MAX {
        return None;
    }
    names.sort_unstable();
    names.dedup();
    if names.len() > limits::PARK_CHANNELS_MAX {
        return None;
    }
    let read = timeout.map(read_timeout);
    let (seconds, action) = read.flatten().unwrap_or((limits::PARK_TIMEOUT_S, Action::NoContent));
    let timeout = Duration::from_secs(seconds);
    Some(Wish { channels: names, timeout, action, timeout_is_bad: read == Some(None) })
}

/// The names in a list of channels.
pub fn split(channels: &[u8]) -> impl Iterator<Item = &[u8]> {
    channels.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|name| !name.is_empty())
}

/// Seconds and action.
fn read_timeout(text: &[u8]) -> Option<(u64, Action)> {
    let mut words = text.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let (seconds, action) = (words.next()?, words.next()?);
    if words.next().is_some() || !seconds.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds: u64 = std::str::from_utf8(seconds).ok()?.parse().ok()?;
    Some((seconds, Action::from_name(action)?)).filter(|(seconds, _)| (1..=limits::TIMEOUT_S_MAX).contains(seconds))
}

/// Something announced to parked requests.
#[derive(Debug, PartialEq, Eq)]
pub struct Notice {
    /// Its number in this process, from 1.
    pub sequence: u64,
    /// Channels it concerns; none: every parked request.
    pub channels: Vec<Vec<u8>>,
    /// What is to become of the requests parked on one of them.
    pub action: Action,
    /// What a request that is run again is told.
    pub arg: Arc<[u8]>,
}

impl Notice {
    /// Bytes of its texts.
    fn bytes(&self) -> usize {
        self.arg.len() + self.channels.iter().map(Vec::len).sum::<usize>()
    }
}

/// A notice that came before its request was parked.
#[derive(Debug, PartialEq, Eq)]
pub enum Missed {
    /// This one.
    Notice(Arc<Notice>),
    /// There may have been one, but so many came after it that it is forgotten.
    Forgotten,
}

/// The last notices: as many as [`limits::NOTICES_MAX`] and [`limits::NOTICES_BYTES_MAX`] allow.
#[derive(Debug, Default)]
pub struct Recent {
    notices: VecDeque<Arc<Notice>>,
    bytes: usize,
    latest: u64,
}

impl Recent {
    /// Remembers what is announced, as the next in the sequence.
    pub fn add(&mut self, channels: Vec<Vec<u8>>, action: Action, arg: &[u8]) -> Arc<Notice> {
        self.latest += 1;
        let notice = Arc::new(Notice { sequence: self.latest, channels, action, arg: arg.into() });
        self.bytes += notice.bytes();
        self.notices.push_back(Arc::clone(&notice));
        while self.notices.len() > limits::NOTICES_MAX || self.bytes > limits::NOTICES_BYTES_MAX {
            let Some(oldest) = self.notices.pop_front() else { break };
            self.bytes -= oldest.bytes();
        }
        notice
    }

    /// The number of the last one; 0 before the first.
    pub fn latest(&self) -> u64 {
        self.latest
    }

    /// The first notice after number `since` on one of these channels.
    pub fn missed(&self, since: u64, channels: &[&[u8]]) -> Option<Missed> {
        if channels.is_empty() || since >= self.latest {
            return None;
        }
        let remembered = self.notices.len() as u64;
        if self.latest - since > remembered {
            return Some(Missed::Forgotten);
        }
        let first = (remembered - (self.latest - since)) as usize;
        let concerns = |notice: &&Arc<Notice>| {
            notice.channels.is_empty() || notice.channels.iter().any(|name| channels.contains(&&name[..]))
        };
        self.notices.range(first..).find(concerns).map(|notice| Missed::Notice(Arc::clone(notice)))
    }
}

/// One parked request's place in a list of those on a channel.
#[derive(Clone, Copy, Debug)]
struct Membership {
    channel: u32,
    at: u32,
}

#[derive(Debug)]
struct Place {
    token: Token,
    /// The last notice before the request was started: older ones don't concern it.
    since: u64,
    memberships: Box<[Membership]>,
}

#[derive(Debug)]
struct Channel {
    name: Arc<[u8]>,
    /// Places, and which of its memberships this is.
    members: Vec<(u32, u32)>,
}

/// The parked requests of one reactor.
#[derive(Debug, Default)]
pub struct Lot {
    places: Slab<Place>,
    channels: Slab<Channel>,
    names: AHashMap<Arc<[u8]>, u32>,
}

impl Lot {
    /// Requests parked here.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nothing is parked here.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Bytes on the heap, the slack of growing lists left out (it is a share, not a sum for each).
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        let of_place = |place: &Place| size_of::<Place>() + size_of_val(&*place.memberships);
        let of_channel = |channel: &Channel| {
            // Its name stands once, and is pointed to twice.
            size_of::<Channel>() + channel.name.len() + 16 + 24 + size_of_val(&*channel.members)
        };
        let places: usize = self.places.iter().map(|(_, place)| of_place(place)).sum();
        places + self.channels.iter().map(|(_, channel)| of_channel(channel)).sum::<usize>()
    }

    /// Parks a request that was started after notice number `since`. Its place.
    pub fn park(&mut self, token: Token, since: u64, channels: &[&[u8]]) -> u32 {
        let place = self.places.vacant_key() as u32;
        let join = |(number, name): (usize, &&[u8])| {
            let channel = match self.names.get(*name) {
                Some(&channel) => channel,
                None => {
                    let name: Arc<[u8]> = (*name).into();
                    let channel = self.channels.insert(Channel { name: Arc::clone(&name), members: Vec::new() }) as u32;
                    self.names.insert(name, channel);
                    channel
                }
            };
            let members = &mut self.channels[channel as usize].members;
            members.push((place, number as u32));
            Membership { channel, at: (members.len() - 1) as u32 }
        };
        let memberships = channels.iter().enumerate().map(join).collect();
        self.places.insert(Place { token, since, memberships });
        place
    }

    /// Frees a place.
    pub fn leave(&mut self, place: u32) {
        let Some(left) = self.places.try_remove(place as usize) else { return };
        for Membership { channel, at } in left.memberships {
            let members = &mut self.channels[channel as usize].members;
            members.swap_remove(at as usize);
            if let Some(&(moved, number)) = members.get(at as usize) {
                self.places[moved as usize].memberships[number as usize].at = at;
            } else if members.is_empty() {
                let channel = self.channels.remove(channel as usize);
                self.names.remove(&channel.name);
            }
        }
    }

    /// Frees the places of all requests that a notice concerns, and hands their tokens out.
    pub fn wake(&mut self, notice: &Notice, mut woken: impl FnMut(Token)) {
        if notice.channels.is_empty() {
            let concerned = |(_, place): &(usize, &Place)| place.since < notice.sequence;
            let places: Vec<u32> = self.places.iter().filter(concerned).map(|(place, _)| place as u32).collect();
            for place in places {
                woken(self.places[place as usize].token);
                self.leave(place);
            }
        }
        for name in &notice.channels {
            let Some(&channel) = self.names.get(&name[..]) else { continue };
            let concerned = |(place, _): &(u32, u32)| self.places[*place as usize].since < notice.sequence;
            let members = &self.channels[channel as usize].members;
            let places: Vec<u32> = members.iter().filter(|member| concerned(member)).map(|(place, _)| *place).collect();
            for place in places {
                woken(self.places[place as usize].token);
                self.leave(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn token(slot: u32) -> Token {
        Token { slot, generation: 1 }
    }

    #[test]
    fn wishes() {
        let default = Wish {
            channels: vec![],
            timeout: Duration::from_secs(7200),
            action: Action::NoContent,
            timeout_is_bad: false,
        };
        let channels = |text: &'static str| wish(text.as_bytes(), None).unwrap().channels;
        assert_eq!(wish(b"", None), Some(default));
        assert_eq!(channels(" b, a ,,b,\ta,"), [b"a", b"b"]);
        assert_eq!(channels("a b"), [b"a b"]);
        let timeout = |text: &str| {
            let wish = wish(b"a", Some(text.as_bytes())).unwrap();
            (wish.timeout.as_secs(), wish.action, wish.timeout_is_bad)
        };
        assert_eq!(timeout("5 retry"), (5, Action::Retry, false));
        assert_eq!(timeout(" 5  http-204 "), (5, Action::NoContent, false));
        assert_eq!(timeout("60 http-504"), (60, Action::GatewayTimeout, false));
        assert_eq!(timeout("1 disconnect"), (1, Action::Disconnect, false));
        for bad in [
            "",
            "5",
            "retry",
            "0 retry",
            "-1 retry",
            "+1 retry",
            "1.5 retry",
            "5 Retry",
            "5 retry x",
            "5 http-200",
            "5\tretry",
            "99999999999 retry",
            "99999999999999999999999 retry",
        ] {
            assert_eq!(timeout(bad), (7200, Action::NoContent, true), "{bad}");
        }
    }

    #[test]
    fn channels_are_bounded() {
        let many: Vec<String> = (0..limits::PARK_CHANNELS_MAX).map(|number| number.to_string()).collect();
        assert!(wish(many.join(",").as_bytes(), None).is_some());
        assert_eq!(wish([many.join(","), "more".into()].join(",").as_bytes(), None), None);
        assert!(wish(&[b'a'; limits::PARK_CHANNELS_BYTES_MAX], None).is_some());
        assert_eq!(wish(&[b'a'; limits::PARK_CHANNELS_BYTES_MAX + 1], None), None);
    }

    #[test]
    fn numbers_of_actions() {
        let action = Action::from_number;
        assert_eq!((action(0), action(1), action(2)), (Action::Disconnect, Action::Retry, Action::NoContent));
        assert_eq!(
            (action(3), action(-1), action(7)),
            (Action::GatewayTimeout, Action::GatewayTimeout, Action::GatewayTimeout)
        );
    }

    fn names(names: &[&str]) -> Vec<Vec<u8>> {
        names.iter().map(|name| name.as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_notice_between_start_and_parking_is_found() {
        let mut recent = Recent::default();
        let mut add = |channels: &[&str], arg: &str| recent.add(names(channels), Action::Retry, arg.as_bytes());
        let (first, second) = (add(&["a", "b"], "1"), add(&["b"], "2"));
        assert_eq!(recent.missed(0, &[b"b"]), Some(Missed::Notice(Arc::clone(&first))), "the first of several");
        assert_eq!(recent.missed(1, &[b"x", b"b"]), Some(Missed::Notice(second)));
        assert_eq!(recent.missed(1, &[b"a"]), None);
        assert_eq!(recent.missed(2, &[b"b"]), None);
        assert_eq!(recent.missed(0, &[]), None);
        assert_eq!(recent.missed(0, &[b"x"]), None);
    }

    #[test]
    fn what_is_forgotten_may_have_concerned_anybody() {
        let mut recent = Recent::default();
        for _ in 0..=limits::NOTICES_MAX {
            recent.add(names(&["a"]), Action::NoContent, b"");
        }
        assert_eq!(recent.missed(0, &[b"x"]), Some(Missed::Forgotten));
        assert_eq!(recent.missed(1, &[b"x"]), None);
        recent.add(names(&["a"]), Action::NoContent, &vec![b'x'; limits::NOTICES_BYTES_MAX]);
        assert_eq!((recent.notices.len(), recent.bytes), (0, 0), "one that is too large is forgotten at once");
        let latest = recent.latest();
        assert_eq!(recent.missed(latest - 1, &[b"x"]), Some(Missed::Forgotten));
        assert_eq!(recent.missed(latest, &[b"a"]), None);
    }

    proptest! {
        /// Whoever is concerned is woken once, and nobody else, and nothing is left of those who have gone.
        #[test]
        fn everybody_concerned_is_woken(steps in proptest::collection::vec((0u8..3, any::<u8>(), 0u64..4), 1..200)) {
            const NAMES: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
            let of = |bits: u8| -> Vec<&[u8]> { (0..4).filter(|bit| bits >> bit & 1 == 1).map(|bit| NAMES[bit]).collect() };
            let (mut lot, mut plain) = (Lot::default(), Vec::new());
            for (slot, (what, bits, since)) in steps.into_iter().enumerate() {
                match what {
                    0 | 1 if what == 0 || plain.is_empty() => {
                        let place = lot.park(token(slot as u32), since, &of(bits));
                        plain.push((slot as u32, place, bits & 15, since));
                    }
                    1 => lot.leave(plain.remove(usize::from(bits) % plain.len()).1),
                    _ => {
                        let channels = of(bits).into_iter().map(<[u8]>::to_vec).collect();
                        let all = bits & 15 == 0;
                        let notice = Notice { sequence: since + 1, channels, action: Action::Retry, arg: [].into() };
                        let mut woken = Vec::new();
                        lot.wake(&notice, |token| woken.push(token.slot));
                        let concerned = |parked: &(u32, u32, u8, u64)| (all || parked.2 & bits > 0) && parked.3 <= since;
                        let expected: BTreeSet<u32> = plain.iter().filter(|p| concerned(p)).map(|p| p.0).collect();
                        plain.retain(|parked| !concerned(parked));
                        prop_assert_eq!(woken.len(), expected.len(), "each once");
                        prop_assert_eq!(woken.into_iter().collect::<BTreeSet<_>>(), expected);
                    }
                }
                prop_assert_eq!(lot.len(), plain.len());
                let used = plain.iter().fold(0, |used, parked| used | parked.2);
                prop_assert_eq!(lot.channels.len(), used.count_ones() as usize);
                prop_assert_eq!(lot.names.len(), lot.channels.len());
            }
        }

        /// Nothing that an application says is misread into a panic, or into more than is allowed.
        #[test]
        fn wishes_are_bounded(channels: Vec<u8>, timeout: Vec<u8>) {
            if let Some(wish) = wish(&channels, Some(&timeout)) {
                prop_assert!(wish.channels.len() <= limits::PARK_CHANNELS_MAX);
                prop_assert!((1..=limits::TIMEOUT_S_MAX).contains(&wish.timeout.as_secs()));
            }
        }
    }
}
