/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * What Rust cannot reach by itself: DPDK's static inline functions, thread-local variables and the
 * layout of structures whose fields move between releases. Nothing here keeps state or decides
 * anything; the safe wrapper in stack/src/dpdk/ does.
 *
 * Functions take and give whole bursts: a call from Rust costs about 1.3 ns, so it must not be made
 * per packet.
 */
#ifndef PREQUEUE_SHIM_H
#define PREQUEUE_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <rte_config.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_ip_frag.h>
#include <rte_lcore.h>
#include <rte_bus_vdev.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <rte_telemetry.h>
#include <rte_version.h>

/* Field offsets and sizes of struct rte_mbuf. bindgen's paths to these fields differ between
 * releases (direct fields in 22.11, inside anonymous unions later); the offsets are what the
 * headers of this build say. */
enum {
	PQS_MBUF_SIZE = sizeof(struct rte_mbuf),
	PQS_OFF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr),
	PQS_OFF_DATA_OFF = offsetof(struct rte_mbuf, data_off),
	PQS_OFF_REFCNT = offsetof(struct rte_mbuf, refcnt),
	PQS_OFF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),
	PQS_OFF_PORT = offsetof(struct rte_mbuf, port),
	PQS_OFF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags),
	PQS_OFF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),
	PQS_OFF_DATA_LEN = offsetof(struct rte_mbuf, data_len),
	PQS_OFF_RSS_HASH = offsetof(struct rte_mbuf, hash.rss),
	PQS_OFF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),
	PQS_OFF_VLAN_TCI = offsetof(struct rte_mbuf, vlan_tci),
	PQS_OFF_POOL = offsetof(struct rte_mbuf, pool),
	PQS_OFF_NEXT = offsetof(struct rte_mbuf, next),
	PQS_HEADROOM = RTE_PKTMBUF_HEADROOM,
	PQS_MAX_LCORE = RTE_MAX_LCORE,
	PQS_MAX_PORTS = RTE_MAX_ETHPORTS,
};

/* Private area of each mbuf of a pool of ours: one cache line behind the header. */
enum { PQS_PRIV_SIZE = RTE_CACHE_LINE_MIN_SIZE };

/* rte_errno of the calling thread (thread-local: a static in Rust would be another variable). */
int pqs_errno(void);
/* LCORE_ID_ANY (UINT32_MAX) on a thread that the EAL does not know. */
uint32_t pqs_lcore_id(void);
uint64_t pqs_rdtsc(void);
/* First CPU of an EAL lcore's set, or -1. */
int pqs_lcore_cpu(unsigned int lcore_id);
/* Whether rte_eal_init has been completed by anybody in this process. */
bool pqs_eal_is_up(void);

/* A packet mbuf pool with PQS_PRIV_SIZE bytes of private area behind each header, recognisable by
 * pqs_pool_is_ours. `user` is stored at byte `user_off` of each private area, for good. NULL on
 * failure, reason in rte_errno. */
struct rte_mempool *pqs_pool_create(const char *name, unsigned int n, unsigned int cache_size,
				    uint16_t data_room, int socket_id, const char *ops,
				    unsigned int user_off, void *user);
/* Whether a pool was made by pqs_pool_create in this process. */
bool pqs_pool_is_ours(const struct rte_mempool *pool);
unsigned int pqs_pool_size(const struct rte_mempool *pool);
/* Bytes of a buffer, headroom included. */
uint16_t pqs_pool_data_room(struct rte_mempool *pool);

/* A reset mbuf, or NULL: in half the time that one of pqs_alloc_bulk takes. */
struct rte_mbuf *pqs_alloc(struct rte_mempool *pool);
/* 0 and `n` reset mbufs, or -ENOENT and none. */
int pqs_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int n);
/* Any mbuf, chains and references included. */
void pqs_free(struct rte_mbuf *m);
/* Frees the leading mbufs that belong to `pool`, at least one of `n` > 0 if the first does; returns
 * how many. Unshared, direct, single-segment ones go to the mempool as they are, in bulk; all
 * others take the ordinary way. */
unsigned int pqs_free_run(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int n);
/* Puts mbufs into their pool as they are: unshared, direct, of one segment each. */
void pqs_put_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int n);
/* Gives back to the pool what the calling lcore's cache keeps of it: for whoever frees into a pool
 * that it does not allocate from, or the pool would never see it again. */
void pqs_pool_flush(struct rte_mempool *pool);
/* Moves a chain into its first segment; negative if its tailroom is too small. */
int pqs_linearize(struct rte_mbuf *m);

uint16_t pqs_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n);
uint16_t pqs_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n);

struct pqs_port_info {
	uint16_t max_rx_queues;
	uint16_t max_tx_queues;
	uint16_t max_mtu;
	uint16_t min_mtu;
	int socket_id;
	bool rss;           /* can spread TCP over IPv4 by hash */
	bool rx_checksum;   /* verifies IPv4 and TCP checksums */
	bool rx_timestamp;  /* stamps received packets */
	bool rx_scatter;    /* puts a frame into several mbufs */
	bool rx_vlan_strip; /* takes VLAN tags off */
	char driver[32];
};

struct pqs_port_conf {
	uint16_t rx_queues;
	uint16_t tx_queues;
	uint16_t rx_desc;     /* in: wanted; out: what the device takes */
	uint16_t tx_desc;     /* in: wanted; out: what the device takes */
	uint16_t mtu;         /* 0: leave the device's */
	bool rss;             /* spread TCP over the RX queues */
	bool rx_checksum;
	bool rx_timestamp;
	bool rx_scatter;
	bool rx_vlan_strip;
};

struct pqs_port_link {
	bool up;
	bool full_duplex;
	uint32_t speed_mbps; /* UINT32_MAX: unknown */
};

int pqs_port_info(uint16_t port, struct pqs_port_info *info);
/* Offloads and RSS that the device does not offer must not be asked for. */
int pqs_port_configure(uint16_t port, struct pqs_port_conf *conf);
int pqs_port_rx_queue(uint16_t port, uint16_t queue, uint16_t desc, struct rte_mempool *pool);
int pqs_port_tx_queue(uint16_t port, uint16_t queue, uint16_t desc);
int pqs_port_link(uint16_t port, struct pqs_port_link *link);
int pqs_port_mac(uint16_t port, uint8_t mac[6]);
int pqs_port_set_mac(uint16_t port, const uint8_t mac[6]);

/* Has the port take frames to these groups too, or to all if it cannot tell them apart. */
int pqs_port_join(uint16_t port, uint8_t (*groups)[6], uint32_t n);
/* Registers the mbuf field of RX timestamps: its offset, and the ol_flags bit that says it is set. */
int pqs_rx_timestamp(int *offset, uint64_t *flag);

/* Fragments that librte_ip_frag puts together to one packet at most. */
enum { PQS_MAX_FRAGMENTS = RTE_LIBRTE_IP_FRAG_MAX_FRAG };

/* A table of librte_ip_frag and its death row. Ages and times are in any one unit. */
struct pqs_reassembly;
/* For at most so many packets at once. NULL on failure, reason in rte_errno. */
struct pqs_reassembly *pqs_reassembly_create(uint32_t datagrams, uint64_t max_age, int socket_id);
/* Frees the table and every mbuf in it, but for the row. */
void pqs_reassembly_destroy(struct pqs_reassembly *r);
/* Takes a fragment of IPv4, pkt_len being that of the frame without padding; the packet if it is whole
 * now. At most PQS_MAX_FRAGMENTS + 1 mbufs, and those of one packet that was too old, are put on the
 * row, which must be emptied before the next call. */
struct rte_mbuf *pqs_reassemble4(struct pqs_reassembly *r, struct rte_mbuf *m, uint16_t l2_len,
				 uint16_t l3_len, uint64_t now);
/* The same of IPv6, whose fragment header is the only extension header before the payload; the packet has
 * none. */
struct rte_mbuf *pqs_reassemble6(struct pqs_reassembly *r, struct rte_mbuf *m, uint16_t l2_len,
				 uint64_t now);
/* Puts the mbufs of packets that are too old on the row, as far as there is room. */
void pqs_reassembly_expire(struct pqs_reassembly *r, uint64_t now);
/* Takes an mbuf from the row, the last first. */
bool pqs_reassembly_dead(struct pqs_reassembly *r, struct rte_mbuf **m);

struct rte_ring *pqs_ring_create(const char *name, unsigned int n, int socket_id);
/* Takes one mbuf out of a ring, NULL if it is empty. */
struct rte_mbuf *pqs_ring_pop(struct rte_ring *ring);

/* The function has another name since 23.03. */
int pqs_tel_add_dict_u64(struct rte_tel_data *data, const char *name, uint64_t value);

#endif
