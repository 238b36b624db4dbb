//! Steps 4 and 5 of `install` for frontends: inserting a Service's frontends, and deleting those that it lost.

use proxy_common::{Frontend, FrontendKey};

use super::{bitmaps::other_family, elements::Elements as _, not_installed::NotInstalled, writer::Writer};
use crate::plan::ServicePlan;

impl Writer {
    /// Step 4 for one Service port; gives back the frontends that it does not have any more.
    pub(super) fn insert_frontends(
        &mut self,
        plan: &ServicePlan,
        index: u32,
        missing: &mut Vec<NotInstalled>,
    ) -> Vec<FrontendKey> {
        let before = self.installed.get(&plan.id).map_or_else(Box::default, |found| found.frontends);
        let known = !self.refused.has(&plan.id);
        let record = self.tables.services.load(index);
        let mut now = Vec::with_capacity(plan.frontends.len());
        for (key, kind) in &plan.frontends {
            self.node_ports.set(key, true);
            let value = Frontend::new(key, index, *kind);
            if !(known && before.binary_search(&(*key, *kind)).is_ok())
                && let Err(error) = self.tables.frontends.enter(key, value)
            {
                let (service, error) = (plan.id.service.clone(), error.to_string());
                missing.push(NotInstalled::Frontend { service, frontend: *key, kind: *kind, error });
                continue;
            }
            self.tables.lines.put(key, value, record.as_ref());
            // It leads to this plan's Service from now on.
            self.orphans.remove(key);
            now.push((*key, *kind));
        }
        now.sort_unstable();
        let gone = before
            .iter()
            .map(|(key, _)| *key)
            .filter(|key| !now.iter().any(|(kept, _)| kept == key))
            .collect();
        if let Some(mut found) = self.installed.get(&plan.id) {
            self.exposed.remove(&before);
            self.exposed.add(&now);
            self.frontends = self.frontends + now.len() - before.len();
            found.frontends = now.into_boxed_slice();
            self.installed.set(&plan.id, &found);
        }
        gone
    }

    /// Step 5 for frontends and the indexes that they led to.
    pub(super) fn delete_frontends(&mut self, gone: Vec<(FrontendKey, u32)>) {
        for (key, index) in gone {
            self.delete_frontend(&key, Some(index));
        }
    }

    /// Deletes every frontend, so that nothing new begins. Endpoints stay, and with them what goes on: an exchange of
    /// datagrams whose endpoint is gone would begin anew (ST-5).
    pub(crate) fn delete_all_frontends(&mut self) {
        let all: Vec<FrontendKey> = self.tables.frontends.keys().filter_map(Result::ok).collect();
        for key in &all {
            self.delete_frontend(key, None);
        }
    }

    /// Step 5: deletes an entry of FRONTENDS, unless another Service has it by now.
    pub(super) fn delete_frontend(&mut self, key: &FrontendKey, index: Option<u32>) {
        let current = self.tables.frontends.get(key, 0).map(|value| value.service);
        if let Ok(current) = current
            && index.is_none_or(|index| index == current)
        {
            self.tables.lines.remove(key);
            self.tables.frontends.withdraw(key);
            if self.tables.frontends.get(&other_family(key), 0).is_err() {
                self.node_ports.set(key, false);
            }
        }
    }
}
