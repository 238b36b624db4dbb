//! What fails under the agent: files, mounts, limits of the kernel, and the agent itself. Connections go on, and `status`
//! says by name what is wrong, for as long as it is.
//!
//! | file | what fails |
//! |---|---|
//! | `crashes` | the agent, between any two of its writes to the tables |
//! | `states` | the agent: `status` tells how |
//! | `full_disk` | the run directory |
//! | `lost_pins` | the BPF file system |
//! | `unreadable_manifests` | the manifests, before the agent starts |
//! | `no_notices` | inotify |
//! | `clock` | the clock: somebody sets it |
//! | `bursts` | nothing: memory goes back after much of it was needed |

mod bursts;
mod clock;
mod crashes;
mod full_disk;
mod lost_pins;
mod no_notices;
mod states;
mod unreadable_manifests;

use sidestep_tests::Lab;

/// What `sidestep status` prints, errors included.
fn status(lab: &Lab) -> String {
    let output = lab.sidestep(&["status"]).expect("status runs");
    let [said, errors] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    format!("{said}{errors}")
}
