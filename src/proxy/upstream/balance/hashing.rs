//! Consistent hashing with results identical to Envoy's: ring hash and Maglev.

use std::sync::Arc;

use xxhash_rust::xxh64::xxh64;

use crate::proxy::upstream::host::Host;

/// Hosts with weights that add up to 1.
pub(super) type Weighted = Vec<(Arc<Host>, f64)>;

/// A hash ring.
#[derive(Debug)]
pub(super) struct Ring(Vec<(u64, Arc<Host>)>);

/// A Maglev table.
#[derive(Debug)]
pub(super) struct Maglev {
    hosts: Vec<Arc<Host>>,
    table: Box<[u32]>,
}

/// Hosts by their own weights.
pub(super) fn by_weight(hosts: &[Arc<Host>]) -> Weighted {
    scaled(hosts, 1.0).collect()
}

/// Hosts with weights scaled to add up to `share`.
pub(super) fn scaled(hosts: &[Arc<Host>], share: f64) -> impl Iterator<Item = (Arc<Host>, f64)> {
    let total: u64 = hosts.iter().map(|host| u64::from(host.weight)).sum();
    let weight = move |host: &Host| f64::from(host.weight) * share / total as f64;
    hosts.iter().map(move |host| (host.clone(), weight(host)))
}

impl Ring {
    /// A ring of at least `min` entries, and at most `max`. The lightest host has a whole number of entries if that is
    /// possible.
    pub(super) fn new(hosts: &Weighted, min: u64, max: u64) -> Self {
        let least = hosts.iter().map(|(_, weight)| *weight).fold(1.0, f64::min);
        let scale = ((least * min as f64).ceil() / least).min(max as f64);
        let mut ring = Vec::with_capacity(scale.ceil() as usize);
        let mut target = 0.0;
        for (host, weight) in hosts {
            target += scale * weight;
            let key = host.address.to_string();
            let mut place = 0;
            while (ring.len() as f64) < target {
                ring.push((xxh64(format!("{key}_{place}").as_bytes(), 0), host.clone()));
                place += 1;
            }
        }
        ring.sort_by_key(|(hash, _)| *hash);
        Self(ring)
    }

    /// The first host at or after a hash; later attempts continue from there.
    pub(super) fn pick(&self, hash: u64, attempt: u32) -> Option<&Arc<Host>> {
        let found = self.0.partition_point(|(place, _)| *place < hash);
        // After the last entry comes the first.
        let first = if found == self.0.len() { 0 } else { found };
        let place = (first + attempt as usize).checked_rem(self.0.len())?;
        self.0.get(place).map(|(_, host)| host)
    }
}

impl Maglev {
    /// A table of `size` entries, a prime number.
    pub(super) fn new(hosts: &Weighted, size: u64) -> Self {
        const EMPTY: u32 = u32::MAX;
        let mut sorted: Vec<_> = hosts
            .iter()
            .map(|(host, weight)| (host.address.to_string(), host, *weight))
            .collect();
        sorted.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        let heaviest = sorted.iter().map(|(.., weight)| *weight).fold(0.0, f64::max);
        let mut entries: Vec<_> = sorted
            .iter()
            .map(|(key, _, weight)| Entry {
                offset: xxh64(key.as_bytes(), 0) % size,
                skip: xxh64(key.as_bytes(), 1) % (size - 1).max(1) + 1,
                weight: *weight,
                target: 0.0,
                next: 0,
            })
            .collect();
        let mut table = vec![EMPTY; usize::try_from(size).unwrap_or(0)];
        let mut left = if heaviest > 0.0 { table.len() } else { 0 };
        let mut round = 0.0;
        while left > 0 {
            round += 1.0;
            for (entry, index) in entries.iter_mut().zip(0..) {
                // The heaviest host takes an entry in each round, one with a third of its weight in every third.
                if left == 0 || round * entry.weight < entry.target {
                    continue;
                }
                entry.target += heaviest;
                let mut place = entry.place(size);
                while table[place] != EMPTY {
                    entry.next += 1;
                    place = entry.place(size);
                }
                entry.next += 1;
                table[place] = index;
                left -= 1;
            }
        }
        Self {
            hosts: sorted.into_iter().map(|(_, host, _)| host.clone()).collect(),
            table: table.into(),
        }
    }

    /// The host for a hash; later attempts use other hashes.
    pub(super) fn pick(&self, hash: u64, attempt: u32) -> Option<&Arc<Host>> {
        let hash = match attempt {
            0 => hash,
            attempt => hash ^ (u64::MAX - u64::from(attempt) + 1),
        };
        let place = hash.checked_rem(self.table.len() as u64)?;
        self.hosts.get(*self.table.get(place as usize)? as usize)
    }
}

/// A host while the table is filled.
struct Entry {
    offset: u64,
    skip: u64,
    weight: f64,
    target: f64,
    next: u64,
}

impl Entry {
    fn place(&self, size: u64) -> usize {
        (self.offset.wrapping_add(self.skip.wrapping_mul(self.next)) % size) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::proxy::upstream::balance::testing::{cluster_config, endpoints, weighted};
    use crate::proxy::upstream::host::{Endpoints, HostAddress, HostSet};

    fn hosts(endpoints: &Endpoints) -> Weighted {
        by_weight(&HostSet::build(&cluster_config(), endpoints, None, Instant::now()).hosts)
    }

    fn port(host: Option<&Arc<Host>>) -> u16 {
        match &host.unwrap().address {
            HostAddress::Ip(address) => address.port(),
            HostAddress::Unix(_) => 0,
        }
    }

    #[test]
    fn places_are_the_hashes_of_address_and_number() {
        let ring = Ring::new(&hosts(&endpoints(&[(1, 0), (2, 0)])), 8, 8 << 20);
        assert_eq!(ring.0.len(), 8);
        for number in 0..4 {
            let hash = xxh64(format!("127.0.0.1:1_{number}").as_bytes(), 0);
            assert_eq!(port(ring.pick(hash, 0)), 1);
        }
        let last = ring.0.last().map(|(hash, _)| *hash).unwrap();
        assert_eq!(port(ring.pick(last.wrapping_add(1), 0)), port(Some(&ring.0[0].1)));
    }

    #[test]
    fn a_ring_gives_places_by_weight_and_keeps_its_limits() {
        let of = |ring: &Ring, wanted| ring.0.iter().filter(|(_, host)| port(Some(host)) == wanted).count();
        let ring = Ring::new(&hosts(&weighted(&[(1, 1), (2, 3)])), 1024, 8 << 20);
        assert_eq!((of(&ring, 1), of(&ring, 2)), (256, 768));
        let small = Ring::new(&hosts(&endpoints(&[(1, 0), (2, 0), (3, 0)])), 1024, 100);
        assert!(small.0.len() <= 101);
    }

    #[test]
    fn another_attempt_looks_elsewhere() {
        let hosts = hosts(&endpoints(&[(1, 0), (2, 0), (3, 0), (4, 0)]));
        let ring = Ring::new(&hosts, 1024, 8 << 20);
        let maglev = Maglev::new(&hosts, 251);
        let different = |picks: Vec<u16>| picks.iter().any(|one| *one != picks[0]);
        assert!(different((0..8).map(|attempt| port(ring.pick(5, attempt))).collect()));
        assert!(different((0..8).map(|attempt| port(maglev.pick(5, attempt))).collect()));
    }

    #[test]
    fn a_table_is_full_and_shared_by_weight() {
        let of = |maglev: &Maglev, wanted| {
            let places = maglev.table.iter();
            places
                .filter(|place| port(maglev.hosts.get(**place as usize)) == wanted)
                .count()
        };
        let maglev = Maglev::new(&hosts(&weighted(&[(1, 1), (2, 3)])), 65537);
        let (light, heavy) = (of(&maglev, 1), of(&maglev, 2));
        assert_eq!(light + heavy, 65537);
        assert!((heavy as f64 / light as f64 - 3.0).abs() < 0.01);
    }

    #[test]
    fn the_order_in_which_hosts_are_given_does_not_matter() {
        let one = Maglev::new(&hosts(&endpoints(&[(1, 0), (2, 0), (3, 0)])), 251);
        let other = Maglev::new(&hosts(&endpoints(&[(3, 0), (1, 0), (2, 0)])), 251);
        assert_eq!(one.table, other.table);
    }

    #[test]
    fn nothing_is_picked_of_nothing() {
        assert!(Ring::new(&Vec::new(), 1024, 2048).pick(1, 0).is_none());
        assert!(Maglev::new(&Vec::new(), 251).pick(1, 0).is_none());
    }
}
