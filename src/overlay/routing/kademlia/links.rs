//! The links of a table, and which of them fit.

use std::ops::Range;

use super::KademliaConfig;
use super::budget::{Asked, Served};
use crate::overlay::OverlayId;
use crate::overlay::routing::Admission;

#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) id: OverlayId,
    /// Later ones have larger numbers. Never used twice.
    pub(super) serial: u32,
    pub(super) verified: bool,
    pub(super) responds: bool,
    /// Peers it named to which no link could be made, less those to which one could.
    pub(super) junk: u8,
    pub(super) asked: Asked,
    pub(super) served: Served,
}

/// Links that fit, and others. Both are ordered, the closest first, so that buckets are ranges.
#[derive(Debug)]
pub(super) struct Links {
    own: OverlayId,
    fit: Vec<Link>,
    guests: Vec<Link>,
}

impl Links {
    pub(super) fn new(own: OverlayId) -> Self {
        Self { own, fit: Vec::new(), guests: Vec::new() }
    }

    /// Those that fit, the closest first.
    pub(super) fn fit(&self) -> &[Link] {
        &self.fit
    }

    pub(super) fn guests(&self) -> &[Link] {
        &self.guests
    }

    pub(super) fn fit_mut(&mut self) -> &mut [Link] {
        &mut self.fit
    }

    /// The bucket of an id, or `None` if it is our own.
    pub(super) fn bucket(&self, id: &OverlayId) -> Option<u32> {
        self.own.xor(id).log2()
    }

    /// How many that fit are closer than this id.
    pub(super) fn closer(&self, id: &OverlayId) -> usize {
        position(self.own, &self.fit, id).unwrap_or_else(|at| at)
    }

    /// Where those of a bucket are among those that fit.
    pub(super) fn range(&self, bucket: u32) -> Range<usize> {
        let bucket = Some(bucket);
        self.fit.partition_point(|link| self.bucket(&link.id) < bucket)
            ..self.fit.partition_point(|link| self.bucket(&link.id) <= bucket)
    }

    pub(super) fn count(&self, bucket: u32) -> usize {
        self.range(bucket).len()
    }

    pub(super) fn get(&self, id: &OverlayId) -> Option<&Link> {
        let at = |links: &[Link]| position(self.own, links, id).ok();
        at(&self.fit).map(|at| &self.fit[at]).or_else(|| at(&self.guests).map(|at| &self.guests[at]))
    }

    pub(super) fn get_mut(&mut self, id: &OverlayId) -> Option<&mut Link> {
        match position(self.own, &self.fit, id) {
            Ok(at) => Some(&mut self.fit[at]),
            Err(_) => position(self.own, &self.guests, id).ok().map(|at| &mut self.guests[at]),
        }
    }

    /// How much junk the link with this number has named.
    pub(super) fn junk(&self, serial: u32) -> u8 {
        self.fit.iter().chain(&self.guests).find(|link| link.serial == serial).map_or(0, |link| link.junk)
    }

    pub(super) fn by_serial(&mut self, serial: u32) -> Option<&mut Link> {
        self.fit.iter_mut().chain(&mut self.guests).find(|link| link.serial == serial)
    }

    pub(super) fn fits(&self, id: &OverlayId) -> bool {
        position(self.own, &self.fit, id).is_ok()
    }

    /// Whether a verified peer fits. This one rule says who is admitted, who is wished for and who has to go, so that no
    /// link is made that would not last.
    pub(super) fn admission(&self, id: &OverlayId, config: &KademliaConfig) -> Admission {
        let Some(bucket) = self.bucket(id) else { return Admission::No };
        if self.fits(id) {
            return Admission::Yes;
        }
        let range = self.range(bucket);
        let count = range.len();
        let gives_way = if count >= config.bucket {
            self.fit[range].iter().filter(|link| link.is_weak()).max_by_key(|link| link.serial)
        } else if self.fit.len() < config.cap {
            return Admission::Yes;
        } else {
            self.surplus(id, bucket, count, config)
        };
        gives_way.map_or(Admission::No, |link| Admission::Instead(link.id))
    }

    /// Who gives way to a newcomer when there are as many as there may be: neither one of the closest nor the only one of
    /// its bucket. One that is weak, or else the youngest of the fullest bucket, if that has more than the newcomer's will
    /// have, or if the newcomer is near.
    fn surplus(&self, id: &OverlayId, bucket: u32, count: usize, config: &KademliaConfig) -> Option<&Link> {
        let near = self.closer(id) < config.kept();
        // A newcomer that is near makes room for itself among the closest.
        let far = self.fit.get(config.kept() - usize::from(near)..)?;
        let mut fullest: Option<(usize, &[Link])> = None;
        for links in far.chunk_by(|a, b| self.bucket(&a.id) == self.bucket(&b.id)) {
            let Some(other) = self.bucket(&links[0].id) else { continue };
            let others = if other == bucket { count } else { self.count(other) };
            if others < 2 && other != bucket {
                continue;
            }
            if let Some(weak) = links.iter().filter(|link| link.is_weak()).max_by_key(|link| link.serial) {
                return Some(weak);
            }
            if fullest.is_none_or(|(most, _)| others >= most) {
                fullest = Some((others, links));
            }
        }
        let (most, links) = fullest?;
        if near || most > count + 1 { links.iter().max_by_key(|link| link.serial) } else { None }
    }

    /// Takes in a link, and returns the one that had to give way.
    pub(super) fn insert(&mut self, link: Link, config: &KademliaConfig) -> Option<OverlayId> {
        let admission = self.admission(&link.id, config);
        let displaced = match admission {
            Admission::Yes => None,
            Admission::Instead(old) if link.verified => Some(old),
            Admission::Instead(_) | Admission::No => {
                put(self.own, &mut self.guests, link);
                return None;
            }
        };
        if let Some(old) = displaced.and_then(|old| position(self.own, &self.fit, &old).ok()) {
            let old = self.fit.remove(old);
            put(self.own, &mut self.guests, old);
        }
        put(self.own, &mut self.fit, link);
        displaced
    }

    /// Takes a link out. Returns it, and whether it was one that fitted.
    pub(super) fn remove(&mut self, id: &OverlayId) -> Option<(Link, bool)> {
        match position(self.own, &self.fit, id) {
            Ok(at) => Some((self.fit.remove(at), true)),
            Err(_) => position(self.own, &self.guests, id).ok().map(|at| (self.guests.remove(at), false)),
        }
    }

    /// Takes in guests for which there is room now, the oldest first.
    pub(super) fn promote(&mut self, config: &KademliaConfig) {
        while let Some(at) = (0..self.guests.len())
            .filter(|at| self.admission(&self.guests[*at].id, config) == Admission::Yes)
            .min_by_key(|at| self.guests[*at].serial)
        {
            let guest = self.guests.remove(at);
            put(self.own, &mut self.fit, guest);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        (self.fit.capacity() + self.guests.capacity()) * size_of::<Link>()
    }
}

impl Link {
    pub(super) fn new(id: OverlayId, serial: u32, verified: bool) -> Self {
        Self { id, serial, verified, responds: true, junk: 0, asked: Asked::default(), served: Served::default() }
    }

    /// Whether any proven peer may take its place.
    fn is_weak(&self) -> bool {
        !self.responds || !self.verified
    }
}

fn position(own: OverlayId, links: &[Link], id: &OverlayId) -> Result<usize, usize> {
    links.binary_search_by_key(&own.xor(id), |link| own.xor(&link.id))
}

fn put(own: OverlayId, links: &mut Vec<Link>, link: Link) {
    if let Err(at) = position(own, links, &link.id) {
        links.insert(at, link);
    }
}
