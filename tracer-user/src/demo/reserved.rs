//! A port that is nobody's by chance until the process that it is for listens on it.
//!
//! A port that was only asked for and given back is the next one that the kernel gives to some connection. Here a
//! socket stays bound to it, without listening. With `SO_REUSEADDR`, which servers set, another process can still
//! listen there; the kernel itself hands the port to nobody.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};

/// An address that is kept until this is dropped. Connections to it are refused until somebody listens there.
#[derive(Debug)]
pub struct Reserved {
    address: SocketAddr,
    _socket: OwnedFd,
}

impl Reserved {
    /// Keeps `address`, with any free port where that is 0.
    ///
    /// # Errors
    /// The port is taken, or none is free, or the address is not one of this machine.
    pub fn new(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &address)?;
        let address = getsockname(socket.as_fd())?.try_into()?;
        Ok(Self { address, _socket: socket })
    }

    /// The address, with its port.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn only_who_listens_there_has_it() {
        let reserved = Reserved::new((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let address = reserved.address();
        assert_ne!(address.port(), 0);
        let unwanted = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let unwanted = bind(unwanted.expect("a socket"), &address).expect_err("a socket that does not share");
        assert_eq!(unwanted, rustix::io::Errno::ADDRINUSE);
        assert_eq!(
            TcpStream::connect(address).map_err(|error| error.kind()).err(),
            Some(io::ErrorKind::ConnectionRefused)
        );
        for _ in 0..2 {
            let listener = TcpListener::bind(address).expect("servers share");
            TcpStream::connect(address).expect("somebody listens");
            assert!(Reserved::new(address).is_err(), "it is somebody's now");
            drop(listener);
        }
    }
}
