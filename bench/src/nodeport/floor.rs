//! The floor: programs that end at once (`TCX_NEXT`), at the same devices and directions as Sidestep's. Any program
//! at TC costs at least this much, so none can come closer to direct.

use anyhow::{Context as _, Result, ensure};
use nix::net::if_::if_nametoindex;
use sidestep_tests::{
    foreign::{ForeignProgram, Tcx, programs_at},
    namespace::Namespace,
};

use super::site::Site;

/// Attaches them to the node of `site`, at the devices and directions where Sidestep has its programs on the node of
/// `served`. They disappear with the devices.
pub(super) fn attach(site: &Site, served: &Site) -> Result<()> {
    let mut attached = 0;
    for (device, model) in site.devices().into_iter().zip(served.devices()) {
        for side in [Tcx::Egress, Tcx::Ingress] {
            let programs = at(&served.node, model, |device| programs_at(device, side))
                .with_context(|| format!("cannot query the programs at {model}, {side:?}"))?;
            if !programs.is_empty() {
                at(&site.node, device, |device| ForeignProgram::at_device(device, side))
                    .with_context(|| format!("cannot attach a program at {device}, {side:?}"))?;
                attached += 1;
            }
        }
    }
    ensure!(attached > 0, "Sidestep has no TCX programs attached, which the floor needs (Linux 6.6)");
    Ok(())
}

/// Calls a function with the index of a node's device, in the node's namespace.
fn at<T: Send>(node: &Namespace, device: &str, work: impl FnOnce(u32) -> Result<T> + Send) -> Result<T> {
    node.run(|| work(if_nametoindex(device)?))?
}
