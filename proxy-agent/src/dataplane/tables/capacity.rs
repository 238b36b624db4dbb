//! How many entries the tables have, and how many they grow to.
//!
//! Pure. Most nodes have fifty Services and some a hundred thousand; nobody has to say which.

use proxy_common::connection::buckets::{REGION, SLOTS};

/// How much the tables hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Service ports in all families.
    pub services: u32,
    /// Addresses that lead to them, each with its port.
    pub frontends: u32,
    /// Endpoints, including those that an update replaces until it ends.
    pub endpoints: u32,
    /// Clients with ClientIP affinity.
    pub clients: u32,
    /// North-south connections and UDP flows; 0 while no Service can be reached from outside the node.
    pub flows: u32,
}

impl Capacity {
    /// What tables begin with. They grow with what they are to hold ([`Capacity::grown`]).
    pub const START: Self =
        Self { services: 1 << 10, frontends: 1 << 11, endpoints: 1 << 11, clients: 1 << 6, flows: 0 };
    /// Bytes of the tables of [`Capacity::default`], all of them full (`deploy/base/daemonset.yaml` adds them up).
    const FULL: u64 = 256 << 20;
    /// By how much they grow at least.
    const STEP: u32 = 4;
    /// What the table of connections begins with, when the first Service can be reached from outside. It grows when a quarter
    /// is in use: the rest is for the connections of a burst until then.
    pub(crate) const FIRST_FLOWS: u32 = 12_288;

    /// What the tables may grow to with so many bytes for them: all of them full take no more. Connections have the same
    /// room everywhere.
    pub fn of_memory(bytes: u64) -> Self {
        let mut most = Self::default();
        let (mut room, mut step) = (bytes, 0_u32);
        while room >= 2 * Self::FULL && step < 3 {
            (room, step) = (room / 2, step + 1);
            most = most.scaled(|length| length * 2);
        }
        let (mut room, mut step) = (bytes, 0_u32);
        while room < Self::FULL && step < 4 {
            (room, step) = (room * 2, step + 1);
            most = most.scaled(|length| length / 2);
        }
        most
    }

    fn scaled(self, by: impl Fn(u32) -> u32) -> Self {
        let Self { services, frontends, endpoints, clients, flows } = self;
        Self {
            services: by(services),
            frontends: by(frontends),
            endpoints: by(endpoints),
            clients: by(clients),
            flows,
        }
    }

    /// No more than `limits` of anything.
    #[must_use]
    pub fn within(self, limits: Self) -> Self {
        self.zip(limits, u32::min)
    }

    /// The next size in which `needed` fits with a quarter to spare, as far as `limits` allow; `None` where the present size
    /// has that, or nothing may grow. Services, frontends and endpoints grow together, so that one does not follow the other.
    pub fn grown(self, needed: Self, limits: Self) -> Option<Self> {
        let with_spare = needed.zip(needed, |needed, _| needed.saturating_add(needed / 3));
        let lacks = |size: u32, wanted: u32, limit: u32| wanted > size && size < limit;
        // How many clients will be is not known before: they get all that they may have.
        let clients =
            if lacks(self.clients, needed.clients, limits.clients) { limits.clients } else { self.clients };
        let begins = self.flows == 0 && needed.flows > 0;
        let flows = if begins { limits.flows.min(needed.flows) } else { self.flows };
        let mut size = Self { clients, flows, ..self };
        while lacks(size.services, with_spare.services, limits.services)
            || lacks(size.frontends, with_spare.frontends, limits.frontends)
            || lacks(size.endpoints, with_spare.endpoints, limits.endpoints)
        {
            size = size.next(limits)?;
        }
        (size != self).then_some(size)
    }

    /// The next size for connections; `None` where they have all the room that they may have. The last step is not a small one.
    pub fn with_more_flows(self, limits: Self) -> Option<Self> {
        let next = self.flows.saturating_mul(Self::STEP);
        let flows = if next > limits.flows / 2 { limits.flows } else { next };
        (flows > self.flows).then_some(Self { flows, ..self })
    }

    /// Whether `needed` fits into the present size, with nothing to spare. Clients never do before their table has its full
    /// size: those that were remembered while it grew might be sent to another endpoint.
    pub fn holds(self, needed: Self) -> bool {
        needed.services <= self.services
            && needed.frontends <= self.frontends
            && needed.endpoints <= self.endpoints
            && needed.clients <= self.clients
            && (needed.flows == 0 || self.flows != 0)
    }

    /// The next size for Services, frontends and endpoints; `None` where they are as large as they may be.
    pub fn next(self, limits: Self) -> Option<Self> {
        let more = |size: u32, limit: u32| size.saturating_mul(Self::STEP).min(limit).max(size);
        let size = Self {
            services: more(self.services, limits.services),
            frontends: more(self.frontends, limits.frontends),
            endpoints: more(self.endpoints, limits.endpoints),
            ..self
        };
        (size != self).then_some(size)
    }

    /// The size to go back to when no more than `used` is in use, with as much to spare, and not below `least`; `None` where
    /// that is not at most half of the present size, nor are tables longer than `limits` allow. What they begin with is the
    /// least of all.
    pub fn shrunk(self, used: Self, least: Self, limits: Self) -> Option<Self> {
        let start = Self { flows: Self::FIRST_FLOWS, ..Self::START }.within(limits);
        let mut size = start;
        // At their limits they may be full.
        let lacks =
            |size: u32, used: u32, least: u32, limit: u32| (used > size / 2 || least > size) && size < limit;
        while (lacks(size.services, used.services, least.services, limits.services)
            || lacks(size.frontends, used.frontends, least.frontends, limits.frontends)
            || lacks(size.endpoints, used.endpoints, least.endpoints, limits.endpoints))
            && let Some(next) = size.next(limits)
        {
            size = next;
        }
        // As many as whole regions have.
        let most = limits.flows_room();
        while lacks(size.flows_room(), used.flows.saturating_mul(4), least.flows, most)
            && let Some(next) = size.with_more_flows(limits)
        {
            size = next;
        }
        let fits = size.holds(Self { clients: 0, flows: 0, ..used.max(least) });
        let Self { services, frontends, endpoints, .. } = if fits { size } else { self };
        let clients = if used.clients == 0 { start.clients.max(least.clients) } else { self.clients };
        let flows = if used.flows > size.flows / 4 { self.flows } else { size.flows_room() };
        let size = Self { services, frontends, endpoints, clients, flows }.within(self);
        let limit = Self { flows: most, ..limits };
        let [before, after, limit] = [self, size, limit].map(Self::lengths);
        let is_worth_it = |place: usize| {
            after[place] < before[place]
                && (after[place] <= before[place] / 2 || before[place] > limit[place])
        };
        (0..before.len()).any(is_worth_it).then_some(size)
    }

    /// Whether anything is bigger than before.
    pub fn is_bigger(self, before: Self) -> bool {
        self.within(before) != self
    }

    /// The larger of everything.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        self.zip(other, u32::max)
    }

    const fn lengths(self) -> [u32; 5] {
        let Self { services, frontends, endpoints, clients, flows } = self;
        [services, frontends, endpoints, clients, flows]
    }

    fn zip(self, other: Self, join: impl Fn(u32, u32) -> u32) -> Self {
        Self {
            services: join(self.services, other.services),
            frontends: join(self.frontends, other.frontends),
            endpoints: join(self.endpoints, other.endpoints),
            clients: join(self.clients, other.clients),
            flows: join(self.flows, other.flows),
        }
    }

    /// Regions of FLOWS, which it consists of.
    pub(crate) fn regions(&self) -> u32 {
        // As many buckets as a record id can name.
        self.flows.div_ceil(REGION * SLOTS).clamp(1, (1 << 24) / REGION)
    }

    /// For how many connections FLOWS has room with this size.
    fn flows_room(&self) -> u32 {
        if self.flows == 0 { 0 } else { self.buckets() * SLOTS }
    }

    /// Buckets of FLOWS.
    pub(crate) fn buckets(&self) -> u32 {
        self.regions() * REGION
    }
}

/// What tables may grow to.
impl Default for Capacity {
    fn default() -> Self {
        Self { services: 1 << 17, frontends: 1 << 18, endpoints: 1 << 18, clients: 1 << 16, flows: 1 << 16 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Capacity = Capacity {
        services: 1 << 17,
        frontends: 1 << 18,
        endpoints: 1 << 18,
        clients: 1 << 16,
        flows: 1 << 16,
    };
    const NOTHING: Capacity = Capacity { services: 0, frontends: 0, endpoints: 0, clients: 0, flows: 0 };

    #[test]
    fn tables_grow_before_they_are_full_and_all_three_together() {
        let start = Capacity::START;
        let needed = |services| Capacity { services, frontends: 0, endpoints: 0, clients: 0, flows: 0 };
        assert_eq!(start.grown(needed(768), LIMITS), None, "three quarters");
        assert!(start.holds(needed(1024)) && !start.holds(needed(1025)));
        let grown = start.grown(needed(769), LIMITS).expect("more than three quarters");
        assert_eq!((grown.services, grown.frontends, grown.endpoints), (1 << 12, 1 << 13, 1 << 13));
        assert_eq!((grown.clients, grown.flows), (start.clients, start.flows));
        let grown = start.grown(needed(100_000), LIMITS).expect("far more");
        assert_eq!((grown.services, grown.frontends, grown.endpoints), (1 << 17, 1 << 18, 1 << 18));
    }

    #[test]
    fn nothing_grows_beyond_its_limit_nor_is_there_an_endless_search() {
        let start = Capacity::START;
        let needed =
            Capacity { services: 10_000, frontends: 10_000, endpoints: u32::MAX, clients: 0, flows: 0 };
        let limits = Capacity { services: 512, frontends: 3000, endpoints: 5000, ..LIMITS };
        let grown = start.grown(needed, limits).expect("endpoints have room to grow");
        assert_eq!((grown.services, grown.frontends, grown.endpoints), (1 << 10, 3000, 5000));
        assert_eq!(grown.grown(needed, limits), None);
    }

    #[test]
    fn tables_go_back_when_they_are_far_too_long_or_longer_than_they_may_be() {
        let big = Capacity {
            flows: 12_544,
            ..Capacity::START.next(LIMITS).and_then(|size| size.next(LIMITS)).expect("bigger")
        };
        let used = |services| Capacity {
            services,
            frontends: services,
            endpoints: services,
            clients: 0,
            flows: 100,
        };
        let services =
            |size: Option<Capacity>| size.map(|size| (size.services, size.frontends, size.endpoints));
        assert_eq!(services(big.shrunk(used(512), NOTHING, LIMITS)), Some((1 << 10, 1 << 11, 1 << 11)));
        assert_eq!(services(big.shrunk(used(513), NOTHING, LIMITS)), Some((1 << 12, 1 << 13, 1 << 13)));
        assert_eq!(big.shrunk(used(2049), NOTHING, LIMITS), None, "more than an eighth is in use");
        let small = big.shrunk(used(512), NOTHING, LIMITS).expect("smaller");
        assert_eq!(small.flows, big.flows, "no more than it begins with");
        assert_eq!(small.shrunk(used(1), NOTHING, LIMITS), None);
        assert_eq!(small.grown(used(512), LIMITS), None, "nor does it grow again");

        let lower = Capacity { services: 3000, ..LIMITS };
        assert_eq!(
            services(big.shrunk(used(2900), NOTHING, lower)),
            Some((3000, 1 << 13, 1 << 13)),
            "full, but it fits"
        );
        assert_eq!(big.shrunk(used(3001), NOTHING, lower), None, "what is served stays");
        let odd = Capacity { services: 1201, ..Capacity::START };
        assert_eq!(odd.shrunk(used(100), NOTHING, LIMITS), None, "not worth it");
    }

    #[test]
    fn affinity_goes_back_without_clients_and_connections_when_there_are_few() {
        let full = Capacity { clients: LIMITS.clients, flows: 65_856, ..Capacity::START };
        let used = |clients, flows| Capacity { services: 1, frontends: 1, endpoints: 1, clients, flows };
        assert_eq!(full.shrunk(used(u32::MAX, 10_000), NOTHING, LIMITS), None);
        let clients = full.shrunk(used(0, 10_000), NOTHING, LIMITS);
        assert_eq!(clients, Some(Capacity { clients: Capacity::START.clients, ..full }));
        let flows = full.shrunk(used(u32::MAX, 1500), NOTHING, LIMITS);
        assert_eq!(flows, Some(Capacity { flows: 12_544, ..full }));
        assert_eq!(
            full.shrunk(used(u32::MAX, 1500), flows.expect("smaller"), LIMITS),
            flows,
            "the same again"
        );
        assert_eq!(flows.expect("smaller").shrunk(used(u32::MAX, 1500), NOTHING, LIMITS), None);
        let lower = Capacity { flows: 40_000, ..LIMITS };
        let flows = |used| full.shrunk(used, NOTHING, lower).map(|size| size.flows);
        assert_eq!(flows(used(u32::MAX, 9000)), Some(lower.flows_room()));
        assert_eq!(flows(used(u32::MAX, 11_000)), None, "they need their room");
        let none = Capacity { flows: 0, ..Capacity::START };
        assert_eq!(none.shrunk(used(0, 0), NOTHING, LIMITS), None);
    }

    #[test]
    fn the_limits_follow_the_memory() {
        let of = |mebibytes: u64| Capacity::of_memory(mebibytes << 20);
        assert_eq!((of(256), of(511)), (Capacity::default(), Capacity::default()));
        assert_eq!((of(128).services, of(64).endpoints), (1 << 16, 1 << 16));
        assert_eq!((of(0).services, of(1 << 20).services), (1 << 13, 1 << 20));
        assert_eq!(of(0).flows, Capacity::default().flows);
    }

    #[test]
    fn clients_get_their_whole_table_at_once_and_connections_when_there_are_more() {
        let needed = Capacity { services: 1, frontends: 1, endpoints: 1, clients: 0, flows: 0 };
        let grown = |needed| Capacity::START.grown(needed, LIMITS);
        assert_eq!(grown(needed), None);
        let affinity = grown(Capacity { clients: 1 << 13, ..needed });
        assert_eq!(affinity, Some(Capacity { clients: LIMITS.clients, ..Capacity::START }));
        assert!(!Capacity::START.holds(Capacity { clients: u32::MAX, ..needed }));
        let needed = Capacity { flows: Capacity::FIRST_FLOWS, ..needed };
        let outside = grown(needed).expect("a NodePort");
        assert_eq!(outside, Capacity { flows: Capacity::FIRST_FLOWS, ..Capacity::START });
        assert_eq!(outside.grown(needed, LIMITS), None);
        let all = outside.with_more_flows(LIMITS).expect("below the limit");
        assert_eq!(all, Capacity { flows: LIMITS.flows, ..outside });
        assert_eq!(all.with_more_flows(LIMITS), None);
        let higher = Capacity { flows: 100_000, ..LIMITS };
        let more = outside.with_more_flows(higher).expect("below the limit");
        assert_eq!(more.flows, 4 * Capacity::FIRST_FLOWS);
        let most = Capacity { flows: 100_000, ..outside };
        assert_eq!(more.with_more_flows(higher), Some(most));
        let few = Capacity { flows: 100, ..LIMITS };
        assert_eq!(Capacity::START.grown(needed, few), Some(Capacity { flows: 100, ..Capacity::START }));
    }
}
