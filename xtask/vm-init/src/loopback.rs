//! Brings the loopback device up, and gives it the endpoint's address.
//!
//! The ioctls of netdevice(7) are enough for this; they need no netlink library in the initramfs.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result};

/// Brings `lo` up, which also gives it 127.0.0.1/8 and `::1`.
pub(crate) fn up() -> Result<()> {
    let flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING)?;
    ioctl(libc::SIOCSIFFLAGS, "lo", libc::__c_anonymous_ifr_ifru { ifru_flags: flags })
}

/// Adds `address`/32 under the alias `lo:1`.
pub(crate) fn add(address: Ipv4Addr) -> Result<()> {
    let address = libc::__c_anonymous_ifr_ifru { ifru_addr: sockaddr(address)? };
    ioctl(libc::SIOCSIFADDR, "lo:1", address)?;
    // The default netmask, by address class, would make all of 10.0.0.0/8 local, including Service addresses.
    let mask = libc::__c_anonymous_ifr_ifru { ifru_netmask: sockaddr(Ipv4Addr::BROADCAST)? };
    ioctl(libc::SIOCSIFNETMASK, "lo:1", mask)
}

fn ioctl(request: libc::Ioctl, name: &str, value: libc::__c_anonymous_ifr_ifru) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0").context("cannot open a socket")?;
    let mut ifreq = libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: value };
    for (to, from) in ifreq.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: these requests read one `ifreq`, which lives until the call returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw const ifreq) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error()).with_context(|| format!("ioctl on {name}"))
    }
}

/// A `struct sockaddr` that is a `sockaddr_in`: port (two bytes), then the address in network byte order.
fn sockaddr(address: Ipv4Addr) -> Result<libc::sockaddr> {
    let mut data = [0; 14];
    for (to, from) in data[2..6].iter_mut().zip(address.octets()) {
        *to = from.cast_signed();
    }
    Ok(libc::sockaddr { sa_family: libc::AF_INET.try_into()?, sa_data: data })
}
