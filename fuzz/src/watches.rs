//! Lists and watch lines of an API server, a line each.

use proxy_agent::source::fuzzing::Watches;

use crate::plans::Planned;

pub(crate) fn decode(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let (mut watches, mut planned, mut at_once) = (Watches::default(), Planned::new(), Vec::new());
    for line in text.lines() {
        let heard = watches.hear(line);
        at_once.extend(heard.iter().cloned());
        planned.take(heard);
    }
    // However it came, it is the same.
    let mut other = Planned::new();
    other.take(at_once);
    let is_kept = |id: &proxy_agent::plan::ServicePortId| id.service.name() == "kubernetes";
    let all = |planned: &Planned| -> Vec<_> {
        planned.installed().values().filter(|plan| !is_kept(&plan.id)).cloned().collect()
    };
    assert_eq!(all(&planned), all(&other));
}
