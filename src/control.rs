//! The control plane: turns directory changes and proxy connections into xDS snapshots, one per
//! proxy. A single thread, the composer, owns the mesh model and applies all changes in order.

mod ca_on_disk;
mod composer;
mod content;
mod diagnosis;
mod files;
mod fleet;
mod identity;
mod journal;
mod look;
mod offline;
mod registration;
mod registry;
mod roster;
mod seal;
mod secrets;
mod start;
mod state;
mod views;

pub use composer::Reading;
pub use fleet::reason;
pub use identity::Grant;
pub use offline::Offline;
pub use registry::RegisteredWorkload;
pub use roster::{Admission, Convergence, MemberId, ProxyStatus, RefusalRecord, RefusalStatus, Roster};
pub use start::{Running, Settings, StartError, start};
pub use state::{Generation, Published, State};
