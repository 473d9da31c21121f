/* All series in trusted storage: one small index, and the state of each series under a key of its own. */
#ifndef SHELF_H
#define SHELF_H

#include "series.h"

/* The series as committed, or a new one; 409 when there are too many. Valid until the method returns. */
ec_status shelf_take(ec_text name, Series **series);

/* Stores a series; of a finished one only its counts are kept. */
ec_status shelf_put(const Series *series, bool finished);

/* Counts of each series, least recently fed first. */
ec_status shelf_overview(ec_writer *reply);

#endif
