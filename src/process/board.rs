//! What every process can see of every worker: a few figures in shared memory, a row for each. A worker writes its own row, the
//! supervisor and whoever makes statistics read them all; nobody waits for anybody.
//!
//! A row is given to a worker when it is forked and taken back when it has been reaped, so a successor never finds itself in the row
//! of a worker that is still leaving.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::WORKER_ROWS_MAX;
use crate::reactor::shared_memory::SharedMemory;

/// A column. The order is that in memory; new ones go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// The worker's pid; 0: nobody has this row.
    Pid,
    /// Number of the slot, from 1: what the access log calls the process.
    Slot,
    /// Counted up by the worker's main thread as long as it and all its reactors are well.
    Heartbeat,
    /// Requests given to the application since the worker began.
    Requests,
    /// Bytes of memory in RAM.
    Resident,
}

/// Columns of a row: room for more, and rows that share no cache line.
const COLUMNS: usize = 64;

/// All rows.
#[derive(Debug)]
pub struct Board(SharedMemory);

impl Board {
    /// An empty board. To be made before the first fork.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new() -> io::Result<Self> {
        SharedMemory::new(WORKER_ROWS_MAX * COLUMNS).map(Self)
    }

    /// One figure of one row.
    pub fn cell(&self, row: usize, figure: Figure) -> &AtomicU64 {
        &self.0[row % WORKER_ROWS_MAX * COLUMNS + figure as usize]
    }

    /// What stands there.
    pub fn get(&self, row: usize, figure: Figure) -> u64 {
        self.cell(row, figure).load(Ordering::Relaxed)
    }

    /// Writes what is known now.
    pub fn set(&self, row: usize, figure: Figure, value: u64) {
        self.cell(row, figure).store(value, Ordering::Relaxed);
    }

    /// The supervisor: a row that nobody has, emptied; `None` when [`WORKER_ROWS_MAX`] are taken.
    pub fn free_row(&self) -> Option<usize> {
        let row = (0..WORKER_ROWS_MAX).find(|&row| self.get(row, Figure::Pid) == 0)?;
        self.clear(row);
        Some(row)
    }

    /// The supervisor: takes a row back.
    pub fn clear(&self, row: usize) {
        let start = row % WORKER_ROWS_MAX * COLUMNS;
        self.0[start..start + COLUMNS].iter().for_each(|cell| cell.store(0, Ordering::Relaxed));
    }

    /// The rows that somebody has, in order.
    pub fn rows(&self) -> impl Iterator<Item = usize> {
        (0..WORKER_ROWS_MAX).filter(|&row| self.get(row, Figure::Pid) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_given_and_taken_back_empty() {
        let board = Board::new().unwrap();
        let row = board.free_row().unwrap();
        board.set(row, Figure::Pid, 7);
        board.set(row, Figure::Resident, 9);
        let other = board.free_row().unwrap();
        assert_ne!(row, other);
        assert_eq!(board.get(other, Figure::Resident), 0);
        assert_eq!(board.rows().collect::<Vec<_>>(), [row]);
        board.clear(row);
        assert_eq!(board.get(row, Figure::Resident), 0);
        for pid in 1..=WORKER_ROWS_MAX as u64 {
            board.set(board.free_row().unwrap(), Figure::Pid, pid);
        }
        assert_eq!(board.free_row(), None);
    }
}
