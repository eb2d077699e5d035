//! Which addresses are collectors, those that names stand for among them.
//!
//! Names are asked for by a thread of their own, with the resolver of this process (its /etc/hosts and
//! /etc/resolv.conf, not those of the traced service), again and again. A name that is not answered
//! keeps the addresses that it had. What follows from an answer is done by who takes it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    sync::mpsc::{Receiver, sync_channel},
    time::{Duration, Instant},
};

use crate::config::{Collector, Network, Service};

/// Names are asked for this often.
const INTERVAL: Duration = Duration::from_secs(30);
/// The same, while one of them was not answered.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// An address stays one of a name for so long after it was last answered: connections to it go on.
const REMEMBER_FOR: Duration = Duration::from_secs(3600);
/// Addresses that are kept of a name.
const MAX_ADDRESSES: usize = 64;

/// What a name stands for.
#[derive(Debug)]
pub struct Answer {
    /// The name.
    pub host: String,
    /// Its addresses, at least one.
    pub addresses: io::Result<Vec<IpAddr>>,
}

/// Asks for `hosts` from now on, until the receiver is dropped.
///
/// # Errors
/// The thread cannot be started.
pub fn resolve(hosts: Vec<String>) -> io::Result<Receiver<Answer>> {
    let (answers, receiver) = sync_channel(hosts.len().max(1));
    std::thread::Builder::new().name("names".to_owned()).spawn(move || {
        loop {
            let mut interval = INTERVAL;
            for host in &hosts {
                let addresses = look_up(host);
                if addresses.is_err() {
                    interval = RETRY_INTERVAL;
                }
                if answers.send(Answer { host: host.clone(), addresses }).is_err() {
                    return;
                }
            }
            std::thread::sleep(interval);
        }
    })?;
    Ok(receiver)
}

fn look_up(host: &str) -> io::Result<Vec<IpAddr>> {
    let addresses: BTreeSet<IpAddr> =
        (host, 0).to_socket_addrs()?.map(|address| address.ip().to_canonical()).collect();
    if addresses.is_empty() {
        return Err(io::Error::other("the name has no address"));
    }
    Ok(addresses.into_iter().collect())
}

/// The collectors of every service.
#[derive(Debug)]
pub struct Collectors {
    of_service: Vec<Vec<Collector>>,
    /// When each address of a name was last answered.
    names: BTreeMap<String, HashMap<IpAddr, Instant>>,
}

impl Collectors {
    /// Those of the configuration; nothing is known of names yet.
    pub fn new(services: &[Service]) -> Self {
        let of_service: Vec<Vec<Collector>> = services
            .iter()
            .map(|service| service.report.as_ref().map(|report| report.to.clone()).unwrap_or_default())
            .collect();
        let names = of_service.iter().flatten().filter_map(|collector| match collector {
            Collector::Name { host, .. } => Some((host.clone(), HashMap::new())),
            Collector::Network { .. } => None,
        });
        Self { names: names.collect(), of_service }
    }

    /// Every name, once.
    pub fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    /// Takes the addresses that a name was answered with.
    pub fn learn(&mut self, host: &str, addresses: &[IpAddr], now: Instant) {
        let Some(known) = self.names.get_mut(host) else { return };
        known.extend(addresses.iter().map(|address| (*address, now)));
        known.retain(|_, answered| now.duration_since(*answered) < REMEMBER_FOR);
        while known.len() > MAX_ADDRESSES {
            let Some(oldest) = known.iter().min_by_key(|(_, answered)| **answered).map(|(ip, _)| *ip) else {
                break;
            };
            known.remove(&oldest);
        }
    }

    /// Is that address a collector of the service (its position in the configuration)?
    pub fn contains(&self, service: usize, peer: SocketAddr) -> bool {
        self.of_service[service].iter().any(|collector| match collector {
            Collector::Network { network, port } => *port == peer.port() && network.contains(peer.ip()),
            Collector::Name { host, port } => {
                *port == peer.port()
                    && self.names.get(host).is_some_and(|known| known.contains_key(&peer.ip().to_canonical()))
            }
        })
    }

    /// Every network with its port, for the kernel side.
    pub fn table(&self) -> BTreeSet<(Network, u16)> {
        let mut table = BTreeSet::new();
        for collector in self.of_service.iter().flatten() {
            match collector {
                Collector::Network { network, port } => {
                    table.insert((*network, *port));
                }
                Collector::Name { host, port } => {
                    let addresses = self.names.get(host).into_iter().flat_map(HashMap::keys);
                    table.extend(addresses.map(|address| (Network::of_address(*address), *port)));
                }
            }
        }
        table
    }

    /// Names of the service's collectors of which no address is known.
    pub fn unknown_names(&self, service: usize) -> Vec<&str> {
        let names = self.of_service[service].iter().filter_map(|collector| match collector {
            Collector::Name { host, .. } if self.names.get(host).is_none_or(HashMap::is_empty) => {
                Some(host.as_str())
            }
            _ => None,
        });
        names.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::IpAddr,
        path::Path,
        time::{Duration, Instant},
    };

    use super::{Collectors, MAX_ADDRESSES, REMEMBER_FOR};
    use crate::config::Config;

    fn collectors(to: &str) -> Collectors {
        let text = format!("services: [{{ name: a, match: {{ exe: /a }}, report: {{ to: [{to}] }} }}]");
        Collectors::new(&Config::parse(&text, Path::new("test.yaml")).expect("valid").services)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("is one")
    }

    #[track_caller]
    fn check(collectors: &Collectors, peer: &str, expected: bool) {
        assert_eq!(collectors.contains(0, peer.parse().expect("is one")), expected, "{peer}");
    }

    #[test]
    fn networks_and_ports_are_both_compared() {
        let collectors = collectors("\"10.0.0.0/8:443\", \"[::1]:9999\"");
        check(&collectors, "10.1.2.3:443", true);
        check(&collectors, "[::ffff:10.1.2.3]:443", true);
        check(&collectors, "10.1.2.3:80", false);
        check(&collectors, "11.1.2.3:443", false);
        check(&collectors, "[::1]:9999", true);
        assert_eq!(collectors.table().len(), 2);
    }

    #[test]
    fn a_name_keeps_the_addresses_that_it_had_for_a_while() {
        let mut collectors = collectors("\"collector.example:443\"");
        let now = Instant::now();
        check(&collectors, "10.0.0.1:443", false);
        assert_eq!(collectors.unknown_names(0), ["collector.example"]);
        collectors.learn("collector.example", &[address("10.0.0.1")], now);
        assert!(collectors.unknown_names(0).is_empty());
        let later = now + REMEMBER_FOR - Duration::from_secs(1);
        collectors.learn("collector.example", &[address("fd00::1")], later);
        check(&collectors, "10.0.0.1:443", true);
        check(&collectors, "[fd00::1]:443", true);
        check(&collectors, "[fd00::1]:444", false);
        collectors.learn("collector.example", &[address("fd00::1")], now + REMEMBER_FOR);
        check(&collectors, "10.0.0.1:443", false);
        assert_eq!(collectors.table().len(), 1);
    }

    #[test]
    fn a_name_with_ever_new_addresses_stays_bounded() {
        let mut collectors = collectors("\"collector.example:443\"");
        let now = Instant::now();
        for number in 0..=u32::try_from(MAX_ADDRESSES).expect("is small") {
            let address = IpAddr::from((0x0a00_0000 + number).to_be_bytes());
            collectors.learn("collector.example", &[address], now + Duration::from_secs(number.into()));
        }
        assert_eq!(collectors.table().len(), MAX_ADDRESSES);
        check(&collectors, "10.0.0.0:443", false);
    }
}
