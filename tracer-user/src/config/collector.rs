//! Addresses, networks and names of collectors, as `report.to` has them.

use std::net::{IpAddr, Ipv6Addr};

/// Where reports go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Collector {
    /// A network, or one address.
    Network {
        /// Which addresses.
        network: Network,
        /// Which port of theirs.
        port: u16,
    },
    /// A host by its name, whose addresses are asked for again and again.
    Name {
        /// The name.
        host: String,
        /// Which port of its.
        port: u16,
    },
}

/// Addresses that begin with the same bits. An IPv4 address stands as IPv6 maps it, so that a socket
/// of both families and one of IPv4 have the same peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network {
    first: u128,
    prefix_len: u8,
}

impl Network {
    /// The network of this one address.
    pub fn of_address(address: IpAddr) -> Self {
        Self { first: mapped(address), prefix_len: 128 }
    }

    /// Reads `10.0.0.0/8`, `fd00::/8` or a plain address.
    fn parse(text: &str) -> Result<Self, String> {
        let (address, len) = text.split_once('/').map_or((text, None), |(address, len)| (address, Some(len)));
        let address: IpAddr = address.parse().map_err(|_| format!("\"{address}\" is no address"))?;
        let width: u8 = if address.is_ipv4() { 32 } else { 128 };
        let len = match len {
            None => width,
            Some(len) => len
                .parse()
                .ok()
                .filter(|len| *len <= width)
                .ok_or_else(|| format!("\"/{len}\" is no length of a network; 0 to {width} bits"))?,
        };
        let network = Self { first: mapped(address), prefix_len: 128 - width + len };
        if network.first & !network.mask() != 0 {
            let first = Self { first: network.first & network.mask(), ..network }.first_address();
            return Err(format!(
                "{address} has bits beyond the first {len}; the network is {}/{len}",
                IpAddr::V6(first).to_canonical()
            ));
        }
        Ok(network)
    }

    /// Is the address one of the network?
    pub fn contains(self, address: IpAddr) -> bool {
        mapped(address) & self.mask() == self.first
    }

    /// Its first address, an IPv4 address mapped.
    pub const fn first_address(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.first)
    }

    /// How many bits all its addresses share, of 128.
    pub const fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    fn mask(self) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(self.prefix_len)).unwrap_or(0)
    }
}

fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl Collector {
    /// Reads `10.0.0.7:443`, `10.0.0.0/8:443`, `[fd00::7]:443`, `[fd00::/8]:443` or `collector.example:443`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        const HOW: &str =
            "write it like `10.0.0.7:443`, `10.0.0.0/8:443`, `[fd00::7]:443` or `collector.example:443`";
        let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("\"{text}\" has no port; {HOW}"))?;
        let port: u16 = port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| format!("\"{text}\" does not end with a port, 1 to 65535; {HOW}"))?;
        if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            return Network::parse(inner).map(|network| Self::Network { network, port });
        }
        if host.contains(':') {
            return Err(format!("\"{text}\": an IPv6 address stands in brackets; {HOW}"));
        }
        let is_numeric =
            !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_digit() || b"./".contains(&byte));
        if is_numeric || host.contains('/') {
            return Network::parse(host).map(|network| Self::Network { network, port });
        }
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        if host.len() > 253 || !host.trim_end_matches('.').split('.').all(is_label) {
            return Err(format!("\"{host}\" is no name of a host; {HOW}"));
        }
        Ok(Self::Name { host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{Collector, Network};

    fn address(text: &str) -> IpAddr {
        text.parse().expect("is one")
    }

    #[track_caller]
    fn check(text: &str, inside: &[&str], outside: &[&str]) {
        let Ok(Collector::Network { network, port }) = Collector::parse(text) else { panic!("{text}") };
        assert_eq!(port, 443);
        assert!(inside.iter().all(|inside| network.contains(address(inside))), "{text}");
        assert!(!outside.iter().any(|outside| network.contains(address(outside))), "{text}");
    }

    #[test]
    fn networks_and_addresses_of_both_families() {
        check("10.0.0.7:443", &["10.0.0.7", "::ffff:10.0.0.7"], &["10.0.0.8", "::a00:7"]);
        check("10.0.0.0/8:443", &["10.255.0.1", "::ffff:10.1.1.1"], &["11.0.0.0"]);
        check("0.0.0.0/0:443", &["1.2.3.4"], &["fd00::1"]);
        check("[fd00::7]:443", &["fd00::7"], &["fd00::8"]);
        check("[fd00::/8]:443", &["fd12::1"], &["fe00::1"]);
        check("[::ffff:10.0.0.7]:443", &["10.0.0.7"], &["10.0.0.8"]);
        check("[::/0]:443", &["fd00::1", "10.0.0.7"], &[]);
    }

    #[test]
    fn names() {
        let name = |text| match Collector::parse(text) {
            Ok(Collector::Name { host, port: 443 }) => host,
            other => panic!("{other:?}"),
        };
        assert_eq!(name("collector.example:443"), "collector.example");
        assert_eq!(name("collector:443"), "collector");
        assert_eq!(name("10.example.:443"), "10.example.");
    }

    #[track_caller]
    fn check_refused(text: &str, part: &str) {
        match Collector::parse(text) {
            Err(message) => assert!(message.contains(part), "{message}"),
            Ok(collector) => panic!("{text} is {collector:?}"),
        }
    }

    #[test]
    fn what_is_neither_is_refused_with_the_remedy() {
        check_refused("collector.example", "has no port");
        check_refused("collector.example:0", "1 to 65535");
        check_refused("fd00::7:443", "in brackets");
        check_refused("10.0.0.7/33:443", "0 to 32 bits");
        check_refused("10.0.0.7/8:443", "the network is 10.0.0.0/8");
        check_refused("[fd00::1/8]:443", "the network is fd00::/8");
        check_refused("10.0.0:443", "is no address");
        check_refused("a b:443", "no name of a host");
        check_refused(":443", "no name of a host");
    }

    #[test]
    fn one_address_is_a_network_of_it_alone() {
        let network = Network::of_address(address("10.0.0.7"));
        assert_eq!(
            (network.prefix_len(), network.first_address().to_string().as_str()),
            (128, "::ffff:10.0.0.7")
        );
    }
}
