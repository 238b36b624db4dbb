//! What fuzzers throw at netlink: what a socket has received, read as answers of each of the kernel's subsystems that
//! the agent asks.

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_sock_diag::SockDiagMessage;
use proxy_common::Tuple;

use super::{
    conntrack, conversation::messages, filters, message::Message, network, nftables, routes, sockets,
};

/// What was in the bytes.
#[derive(Default, Debug)]
pub struct Read {
    /// How many messages they hold, as each subsystem reads them.
    pub messages: [usize; 3],
    /// The names in them.
    pub names: Vec<String>,
    /// The tuples of connections, each with what is read of it after it was written.
    pub tuples: Vec<(Tuple, Option<Tuple>)>,
}

/// Reads everything that the agent looks for in answers.
pub fn read(bytes: &[u8]) -> Read {
    let mut read = Read::default();
    for message in messages::<RouteNetlinkMessage>(bytes) {
        read.messages[0] += 1;
        let Ok(NetlinkPayload::InnerMessage(answer)) = message.map(|message| message.payload) else {
            continue;
        };
        match answer {
            RouteNetlinkMessage::NewLink(link) => {
                read.names.extend(network::link(link).map(|link| link.name));
            }
            RouteNetlinkMessage::NewAddress(address) => drop(network::assigned(&address)),
            RouteNetlinkMessage::NewRoute(route) => {
                routes::preferred_source(&route);
                network::mtu(&route);
                for leads in network::routes(&route) {
                    assert!(leads.leads_to(leads.destination), "{leads:?}");
                }
            }
            RouteNetlinkMessage::NewQueueDiscipline(found) | RouteNetlinkMessage::NewTrafficFilter(found) => {
                filters::is_ours(&found);
                let priority = filters::free_priority(&[found]);
                assert!(priority.is_some_and(|priority| priority > 0), "one filter leaves room");
            }
            _ => {}
        }
    }
    for message in messages::<Message>(bytes) {
        read.messages[1] += 1;
        let Ok(NetlinkPayload::InnerMessage(answer)) = message.map(|message| message.payload) else {
            continue;
        };
        if let Some(entry) = conntrack::translated(answer.attributes()) {
            let again = |tuple: Tuple| (tuple, conntrack::read_again(&tuple));
            read.tuples.extend([entry.asked, entry.answered].map(again));
        }
        let chain = nftables::chain(&answer).into_iter().flat_map(|chain| [chain.table, chain.name]);
        read.names.extend(chain.chain(nftables::jump(answer.attributes()).map(|jump| jump.to)));
    }
    for message in messages::<SockDiagMessage>(bytes) {
        read.messages[2] += 1;
        if let Ok(NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response))) =
            message.map(|message| message.payload)
        {
            let found = sockets::Found::from(*response);
            let _ = (found.peer(), found.cookie());
        }
    }
    read
}
