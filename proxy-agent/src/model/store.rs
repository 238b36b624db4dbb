//! Keeps the objects, and says which Services a change touches.

use std::collections::{BTreeMap, HashMap};

use proxy_common::SocketWish;
use smallvec::SmallVec;

use super::{
    EndpointSlice, Kind, Node, Object, ObjectKey, ObjectName, Pod, Service, packed::Packed, slices::Slices,
};
use crate::memory::shrink;

/// The latest state of every object that matters to one node, packed.
#[derive(Debug)]
pub struct Store {
    node_name: Box<str>,
    node: Option<Node>,
    /// By the Service's name, whether it exists or only slices of it do.
    services: HashMap<ObjectName, Known>,
    /// The Service of each slice.
    slices: HashMap<ObjectName, ObjectName>,
    pods: BTreeMap<ObjectName, Pod>,
    /// Whether all of them have been reported.
    pods_known: bool,
    /// Whether they have changed since somebody last asked.
    pods_changed: bool,
    /// The same of what they say about their sockets.
    wishes_changed: bool,
}

/// The state of one Service.
#[derive(Default, Debug)]
struct Known {
    service: Option<Packed<Service>>,
    slices: Slices,
}

/// What has to be planned anew after a change.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum Touched {
    /// No change: the object is the same as before.
    #[default]
    Nothing,
    /// These Services.
    Services(SmallVec<[ObjectName; 2]>),
    /// Every Service: the Node changed.
    Everything,
}

impl Touched {
    fn service(name: ObjectName) -> Self {
        Self::Services(SmallVec::from_iter([name]))
    }
}

impl Store {
    /// An empty store for the node of this name (EP-5).
    pub fn new(node_name: &str) -> Self {
        Self {
            node_name: node_name.into(),
            node: None,
            services: HashMap::new(),
            slices: HashMap::new(),
            pods: BTreeMap::new(),
            pods_known: false,
            pods_changed: false,
            wishes_changed: false,
        }
    }

    /// Stores a new or changed object. An unchanged object touches nothing.
    pub fn upsert(&mut self, object: Object) -> Touched {
        match object {
            Object::Service(service) => {
                let packed = Packed::new(&service);
                if let Some(known) = self.services.get_mut(&service.name)
                    && known.service.is_some()
                {
                    if known.service.as_ref() == Some(&packed) {
                        return Touched::Nothing;
                    }
                    known.service = Some(packed);
                    return Touched::service(service.name);
                }
                // Under the name that came with the Service: who else keeps it keeps the same allocation.
                let slices = self.services.remove(&service.name).unwrap_or_default().slices;
                for (slice, _) in slices.iter() {
                    if let Some(known) = self.slices.get_mut(slice) {
                        *known = service.name.clone();
                    }
                }
                self.services.insert(service.name.clone(), Known { service: Some(packed), slices });
                Touched::service(service.name)
            }
            Object::EndpointSlice(slice) => self.upsert_slice(&slice),
            Object::Node(node) => {
                if node.name != self.node_name {
                    return Touched::Nothing;
                }
                // Whether it is leaving matters to load balancers, and to no plan.
                let known = self.node.as_ref().map(|known| Node { leaving: node.leaving, ..known.clone() });
                let same = known.as_ref() == Some(&node);
                self.node = Some(node);
                if same { Touched::Nothing } else { Touched::Everything }
            }
            Object::Pod(pod) => {
                let is_here = pod.node.as_ref().is_none_or(|node| *node == self.node_name);
                self.set_pod(&pod.name.clone(), is_here.then_some(pod));
                Touched::Nothing
            }
        }
    }

    fn set_pod(&mut self, name: &ObjectName, pod: Option<Pod>) {
        let before = self.pods.get(name);
        self.pods_changed |= before != pod.as_ref();
        self.wishes_changed |= before.and_then(Pod::wish) != pod.as_ref().and_then(Pod::wish);
        match pod {
            Some(pod) => drop(self.pods.insert(name.clone(), pod)),
            None => drop(self.pods.remove(name)),
        }
    }

    /// All Pods have been reported.
    pub fn know_pods(&mut self) {
        let is_new = !std::mem::replace(&mut self.pods_known, true);
        self.wishes_changed |= is_new;
        self.pods_changed |= is_new;
    }

    /// This node's Pods, if they have changed since the last call; nothing before all are known.
    pub fn take_pods(&mut self) -> Option<impl Iterator<Item = &Pod>> {
        (self.pods_known && std::mem::take(&mut self.pods_changed)).then(|| self.pods.values())
    }

    /// The same of what Pods say about their sockets, by their uid.
    pub fn take_wishes(&mut self) -> Option<impl Iterator<Item = (Box<str>, SocketWish)>> {
        let is_due = self.pods_known && std::mem::take(&mut self.wishes_changed);
        is_due.then(|| self.pods.values().filter_map(Pod::wish))
    }

    fn upsert_slice(&mut self, slice: &EndpointSlice) -> Touched {
        let packed = Packed::new(slice);
        let mut touched = SmallVec::new();
        if let Some(service) = self.slices.get(&slice.name).cloned() {
            if service == slice.service {
                let known = self.services.entry(service).or_default();
                if known.slices.get(&slice.name) == Some(&packed) {
                    return Touched::Nothing;
                }
                known.slices.set(slice.name.clone(), packed);
                return Touched::service(slice.service.clone());
            }
            touched.push(service);
            self.delete_slice(&slice.name);
        }
        // The name that is there already, rather than a second copy of it.
        let entry = self.services.entry(slice.service.clone());
        let service = entry.key().clone();
        entry.or_default().slices.set(slice.name.clone(), packed);
        self.slices.insert(slice.name.clone(), service.clone());
        touched.push(service);
        Touched::Services(touched)
    }

    /// Forgets an object.
    pub fn delete(&mut self, key: &ObjectKey) -> Touched {
        match key.kind {
            Kind::Service => {
                let Some(known) = self.services.get_mut(&key.name) else { return Touched::Nothing };
                let was_there = known.service.take().is_some();
                if known.slices.is_empty() {
                    self.services.remove(&key.name);
                }
                if was_there { Touched::service(key.name.clone()) } else { Touched::Nothing }
            }
            Kind::EndpointSlice => self.delete_slice(&key.name),
            Kind::Node => {
                if *key.name.name() != *self.node_name || self.node.take().is_none() {
                    return Touched::Nothing;
                }
                Touched::Everything
            }
            Kind::Pod => {
                self.set_pod(&key.name, None);
                Touched::Nothing
            }
        }
    }

    fn delete_slice(&mut self, name: &ObjectName) -> Touched {
        let Some(service) = self.slices.remove(name) else { return Touched::Nothing };
        if let Some(known) = self.services.get_mut(&service) {
            known.slices.remove(name);
            if known.slices.is_empty() && known.service.is_none() {
                self.services.remove(&service);
            }
        }
        Touched::service(service)
    }

    /// Gives back the room of what is gone.
    pub fn shrink(&mut self) {
        shrink(&mut self.services);
        shrink(&mut self.slices);
    }

    /// The Node that the agent runs on, if it is known.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// A Service.
    pub fn service(&self, name: &ObjectName) -> Option<Service> {
        let packed = self.services.get(name)?.service.as_ref()?;
        Some(Service { name: name.clone(), ..packed.get() })
    }

    /// Every Service's name, in no particular order.
    pub fn service_names(&self) -> impl Iterator<Item = &ObjectName> {
        self.services.iter().filter(|(_, known)| known.service.is_some()).map(|(name, _)| name)
    }

    /// The EndpointSlices of a Service, in the order of their names.
    pub fn slices_of(&self, service: &ObjectName) -> Vec<EndpointSlice> {
        let Some((service, known)) = self.services.get_key_value(service) else { return Vec::new() };
        let slice = |(name, slice): (&ObjectName, &Packed<EndpointSlice>)| {
            let mut slice = slice.get();
            (slice.name, slice.service) = (name.clone(), service.clone());
            slice
        };
        known.slices.iter().map(slice).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(name: &str, service: &str, port: u16) -> Object {
        let wire = json!({
            "metadata": {"name": name, "namespace": "ns", "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": port}],
        });
        let slice = EndpointSlice::read(serde_json::from_value(wire).expect("an EndpointSlice"));
        Object::EndpointSlice(slice.expect("kept"))
    }

    fn touched(names: &[&str]) -> Touched {
        Touched::Services(names.iter().map(|name| ObjectName::new("ns", name)).collect())
    }

    #[test]
    fn a_slice_touches_the_services_that_it_leaves_and_joins() {
        let mut store = Store::new("n1");
        assert_eq!(store.upsert(slice("s", "a", 1)), touched(&["a"]));
        assert_eq!(store.upsert(slice("s", "a", 1)), Touched::Nothing);
        assert_eq!(store.upsert(slice("s", "a", 2)), touched(&["a"]));
        assert_eq!(store.upsert(slice("s", "b", 2)), touched(&["a", "b"]));
        assert!(store.slices_of(&ObjectName::new("ns", "a")).is_empty());
        assert_eq!(store.slices_of(&ObjectName::new("ns", "b")).len(), 1);
        let key = ObjectKey::new(Kind::EndpointSlice, ObjectName::new("ns", "s"));
        assert_eq!(store.delete(&key), touched(&["b"]));
        assert_eq!(store.delete(&key), Touched::Nothing);
        assert!(store.services.is_empty() && store.slices.is_empty(), "nothing is left behind");
    }

    /// IN-5: only this node's own Node matters, and only when it changes.
    #[test]
    fn only_the_own_node_touches_anything() {
        let node = |name: &str, zone: &str| {
            Object::Node(Node {
                name: name.into(),
                zone: Some(zone.into()),
                addresses: Box::default(),
                leaving: false,
                flaws: Box::default(),
            })
        };
        let mut store = Store::new("n1");
        assert_eq!(store.upsert(node("n2", "a")), Touched::Nothing);
        assert_eq!(store.upsert(node("n1", "a")), Touched::Everything);
        assert_eq!(store.upsert(node("n1", "a")), Touched::Nothing);
        let key = |name| ObjectKey::new(Kind::Node, ObjectName::new("", name));
        assert_eq!(store.delete(&key("n2")), Touched::Nothing);
        assert_eq!(store.delete(&key("n1")), Touched::Everything);
    }

    #[test]
    fn pods_are_told_once_all_are_known_and_their_wishes_apart() {
        let pod = |name: &str, wish: Option<SocketWish>, node: &str| {
            Object::Pod(Pod {
                name: ObjectName::new("shop", name),
                uid: name.into(),
                node: Some(node.into()),
                on_host: false,
                addresses: Box::default(),
                wish,
                flaws: Box::default(),
            })
        };
        let told = |store: &mut Store| {
            let pods =
                store.take_pods().map(|pods| pods.map(|pod| pod.name.name().to_owned()).collect::<Vec<_>>());
            (pods, store.take_wishes().map(Iterator::count))
        };
        let mut store = Store::new("here");
        store.upsert(pod("a", None, "here"));
        store.upsert(pod("b", Some(SocketWish::Serve), "elsewhere"));
        assert_eq!(told(&mut store), (None, None));
        store.know_pods();
        assert_eq!(told(&mut store), (Some(vec!["a".to_owned()]), Some(0)));
        store.upsert(pod("a", None, "here"));
        assert_eq!(told(&mut store), (None, None));
        store.upsert(pod("c", None, "here"));
        assert_eq!(told(&mut store), (Some(vec!["a".to_owned(), "c".to_owned()]), None));
        store.upsert(pod("c", Some(SocketWish::Serve), "here"));
        assert_eq!(told(&mut store), (Some(vec!["a".to_owned(), "c".to_owned()]), Some(1)));
        store.delete(&ObjectKey::new(Kind::Pod, ObjectName::new("shop", "c")));
        assert_eq!(told(&mut store), (Some(vec!["a".to_owned()]), Some(0)));
    }
}
