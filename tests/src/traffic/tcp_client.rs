//! A TCP client.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{Answer, PATIENCE};

/// Connects as most programs do, with a blocking socket of the address's family and a timeout.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    connect_socket(tcp(address)?, address)
}

/// The same, from this local address.
pub fn connect_from(source: IpAddr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = tcp(address)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    connect_socket(socket, address)
}

/// The same, from this local address and port, which may have been used a moment ago.
pub fn connect_bound(source: SocketAddr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = tcp(address)?;
    socket.set_reuse_address(true)?;
    socket.bind(&source.into())?;
    connect_socket(socket, address)
}

fn tcp(address: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
}

fn connect_socket(socket: Socket, address: SocketAddr) -> io::Result<TcpStream> {
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_tcp_nodelay(true)?;
    socket.connect(&address.into())?;
    Ok(socket.into())
}

/// Connects, sends one request, and closes.
pub fn ask(address: SocketAddr) -> io::Result<Answer> {
    Conversation::over(connect(address)?)?.ask()
}

/// A connection for more than one request.
#[derive(Debug)]
pub struct Conversation {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Conversation {
    /// Connects.
    pub fn with(address: SocketAddr) -> io::Result<Self> {
        Self::over(connect(address)?)
    }

    /// Uses an existing connection.
    pub fn over(stream: TcpStream) -> io::Result<Self> {
        Ok(Self { reader: BufReader::new(stream.try_clone()?), stream })
    }

    /// Sends a request.
    pub fn ask(&mut self) -> io::Result<Answer> {
        self.stream.write_all(b"who\n")?;
        self.read()
    }

    /// Reads the answer to a request that was already sent.
    pub fn read(&mut self) -> io::Result<Answer> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        Answer::parse(&line).ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, format!("{line:?}")))
    }

    /// Closes as most clients do: sends a FIN, and waits for the server's.
    pub fn close(mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        match self.reader.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Closes with a reset, which leaves no state at either end.
    pub fn abort(self) -> io::Result<()> {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))
    }

    /// The peer, as the program sees it (getpeername).
    pub fn peer(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}
