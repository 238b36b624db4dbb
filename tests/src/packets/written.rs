//! Packets in readable forms.

use std::{fmt::Write as _, fs::File, path::Path};

use anyhow::Result;
use pcap_file::{
    DataLink,
    pcap::{PcapHeader, PcapPacket, PcapWriter},
};

/// Sixteen bytes a line.
pub fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (number, line) in bytes.chunks(16).enumerate() {
        let _ = write!(text, "\n  {:04x} ", number * 16);
        for byte in line {
            let _ = write!(text, " {byte:02x}");
        }
    }
    text
}

/// Writes frames to a file that `tcpdump -r` and Wireshark read.
pub fn write_pcap(path: &Path, frames: &[&[u8]]) -> Result<()> {
    let header = PcapHeader { datalink: DataLink::ETHERNET, ..PcapHeader::default() };
    let mut file = PcapWriter::with_header(File::create(path)?, header)?;
    for (time, frame) in (0..).map(std::time::Duration::from_secs).zip(frames) {
        file.write_packet(&PcapPacket::new(time, frame.len().try_into()?, frame))?;
    }
    Ok(())
}
