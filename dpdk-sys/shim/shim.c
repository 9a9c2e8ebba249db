/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#define _GNU_SOURCE /* CPU sets */
#define ALLOW_EXPERIMENTAL_API /* rte_ip_frag_table_del_expired_entries */
#include "shim.h"

#include <stdio.h>
#include <string.h>

#include <rte_cycles.h>
#include <rte_malloc.h>
#include <rte_mbuf_dyn.h>
#include <rte_mbuf_pool_ops.h>

int pqs_errno(void)
{
	return rte_errno;
}

uint32_t pqs_lcore_id(void)
{
	return rte_lcore_id();
}

uint64_t pqs_rdtsc(void)
{
	return rte_rdtsc();
}

int pqs_lcore_cpu(unsigned int lcore_id)
{
	rte_cpuset_t set;
	int cpu;

	if (lcore_id >= RTE_MAX_LCORE)
		return -1;
	set = rte_lcore_cpuset(lcore_id);
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &set))
			return cpu;
	return -1;
}

bool pqs_eal_is_up(void)
{
	/* The lcores are counted while the arguments are parsed; there is always one. */
	return rte_lcore_count() > 0;
}

/* Private data of a pool of ours: the packet pool's own, which must come first, then the mark. */
struct pqs_pool_private {
	struct rte_pktmbuf_pool_private pktmbuf;
	uint64_t mark;
};

#define PQS_POOL_MARK UINT64_C(0x7175657565706d31)

struct pqs_user {
	unsigned int off;
	void *user;
};

static void pqs_set_user(struct rte_mempool *pool, void *arg, void *obj, unsigned int index)
{
	const struct pqs_user *u = arg;

	(void)pool;
	(void)index;
	memcpy((char *)rte_mbuf_to_priv(obj) + u->off, &u->user, sizeof(u->user));
}

struct rte_mempool *pqs_pool_create(const char *name, unsigned int n, unsigned int cache_size,
				    uint16_t data_room, int socket_id, const char *ops,
				    unsigned int user_off, void *user)
{
	struct rte_pktmbuf_pool_private params = { 0 };
	struct pqs_pool_private *private;
	struct pqs_user u = { user_off, user };
	struct rte_mempool *pool;
	int ret;

	if (user_off + sizeof(user) > PQS_PRIV_SIZE) {
		rte_errno = EINVAL;
		return NULL;
	}
	pool = rte_mempool_create_empty(name, n,
					sizeof(struct rte_mbuf) + PQS_PRIV_SIZE + data_room,
					cache_size, sizeof(struct pqs_pool_private), socket_id, 0);
	if (pool == NULL)
		return NULL;
	ret = rte_mempool_set_ops_byname(pool, ops, NULL);
	if (ret != 0)
		goto fail;
	params.mbuf_data_room_size = data_room;
	params.mbuf_priv_size = PQS_PRIV_SIZE;
	rte_pktmbuf_pool_init(pool, &params);
	ret = rte_mempool_populate_default(pool);
	if (ret < 0)
		goto fail;
	rte_mempool_obj_iter(pool, rte_pktmbuf_init, NULL);
	rte_mempool_obj_iter(pool, pqs_set_user, &u);
	private = rte_mempool_get_priv(pool);
	private->mark = PQS_POOL_MARK;
	return pool;

fail:
	rte_mempool_free(pool);
	rte_errno = -ret;
	return NULL;
}

bool pqs_pool_is_ours(const struct rte_mempool *pool)
{
	const struct pqs_pool_private *private;

	if (pool->private_data_size < sizeof(struct pqs_pool_private))
		return false;
	private = rte_mempool_get_priv((struct rte_mempool *)(uintptr_t)pool);
	return private->mark == PQS_POOL_MARK;
}

unsigned int pqs_pool_size(const struct rte_mempool *pool)
{
	return pool->size;
}

struct rte_mbuf *pqs_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

int pqs_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int n)
{
	return rte_pktmbuf_alloc_bulk(pool, mbufs, n);
}

void pqs_free(struct rte_mbuf *m)
{
	rte_pktmbuf_free(m);
}

uint16_t pqs_pool_data_room(struct rte_mempool *pool)
{
	return rte_pktmbuf_data_room_size(pool);
}

/* What the mempool expects of an mbuf that is put back as it is: nobody else refers to it, its
 * buffer is its own, and it is a packet of one segment. */
static inline bool pqs_is_plain(const struct rte_mbuf *m)
{
	/* A single segment has no next one: drivers reset both together, and so does every free.
	 * That pointer lies in the second cache line, which need not be fetched for it. */
	return rte_mbuf_refcnt_read(m) == 1 && m->nb_segs == 1 && RTE_MBUF_DIRECT(m);
}

unsigned int pqs_free_run(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int n)
{
	unsigned int i, start = 0;

	for (i = 0; i < n && mbufs[i]->pool == pool; i++) {
		if (likely(pqs_is_plain(mbufs[i])))
			continue;
		if (i > start)
			rte_mempool_put_bulk(pool, (void **)&mbufs[start], i - start);
		rte_pktmbuf_free(mbufs[i]);
		start = i + 1;
	}
	if (i > start)
		rte_mempool_put_bulk(pool, (void **)&mbufs[start], i - start);
	return i;
}

void pqs_put_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int n)
{
	rte_mempool_put_bulk(pool, (void **)mbufs, n);
}

void pqs_pool_flush(struct rte_mempool *pool)
{
	struct rte_mempool_cache *cache = rte_mempool_default_cache(pool, rte_lcore_id());

	if (cache != NULL)
		rte_mempool_cache_flush(cache, pool);
}

int pqs_linearize(struct rte_mbuf *m)
{
	return rte_pktmbuf_linearize(m);
}

uint16_t pqs_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n)
{
	return rte_eth_rx_burst(port, queue, mbufs, n);
}

uint16_t pqs_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n)
{
	return rte_eth_tx_burst(port, queue, mbufs, n);
}

#define PQS_RX_CHECKSUM (RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM)

static uint64_t pqs_rss_types(const struct rte_eth_dev_info *info)
{
	return info->flow_type_rss_offloads & (RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_IPV4 |
					       RTE_ETH_RSS_NONFRAG_IPV6_TCP | RTE_ETH_RSS_IPV6 |
					       RTE_ETH_RSS_IPV6_TCP_EX);
}

int pqs_port_info(uint16_t port, struct pqs_port_info *out)
{
	const uint32_t overhead = RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN;
	struct rte_eth_dev_info info;
	int ret = rte_eth_dev_info_get(port, &info);

	if (ret != 0)
		return ret;
	memset(out, 0, sizeof(*out));
	out->max_rx_queues = info.max_rx_queues;
	out->max_tx_queues = info.max_tx_queues;
	/* Drivers that do not say still limit the frame, as ethdev does: header and CRC besides. */
	out->max_mtu = RTE_MIN(info.max_mtu, info.max_rx_pktlen > overhead ? info.max_rx_pktlen - overhead : 0);
	out->min_mtu = info.min_mtu;
	out->socket_id = rte_eth_dev_socket_id(port);
	out->rss = pqs_rss_types(&info) != 0;
	out->rx_checksum = (info.rx_offload_capa & PQS_RX_CHECKSUM) == PQS_RX_CHECKSUM;
	out->rx_timestamp = (info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_TIMESTAMP) != 0;
	out->rx_scatter = (info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_SCATTER) != 0;
	out->rx_vlan_strip = (info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_VLAN_STRIP) != 0;
	snprintf(out->driver, sizeof(out->driver), "%s", info.driver_name ? info.driver_name : "");
	return 0;
}

int pqs_port_configure(uint16_t port, struct pqs_port_conf *conf)
{
	struct rte_eth_dev_info info;
	struct rte_eth_conf eth;
	int ret = rte_eth_dev_info_get(port, &info);

	if (ret != 0)
		return ret;
	memset(&eth, 0, sizeof(eth));
	if (conf->rx_checksum)
		eth.rxmode.offloads |= PQS_RX_CHECKSUM;
	if (conf->rx_timestamp)
		eth.rxmode.offloads |= RTE_ETH_RX_OFFLOAD_TIMESTAMP;
	if (conf->rx_vlan_strip)
		eth.rxmode.offloads |= RTE_ETH_RX_OFFLOAD_VLAN_STRIP;
	if (conf->rx_scatter)
		eth.rxmode.offloads |= RTE_ETH_RX_OFFLOAD_SCATTER;
	eth.rxmode.mtu = conf->mtu;
	if (conf->rss) {
		eth.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		eth.rxmode.offloads |= info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_RSS_HASH;
		eth.rx_adv_conf.rss_conf.rss_hf = pqs_rss_types(&info);
	}
	ret = rte_eth_dev_configure(port, conf->rx_queues, conf->tx_queues, &eth);
	if (ret != 0)
		return ret;
	return rte_eth_dev_adjust_nb_rx_tx_desc(port, &conf->rx_desc, &conf->tx_desc);
}

int pqs_port_rx_queue(uint16_t port, uint16_t queue, uint16_t desc, struct rte_mempool *pool)
{
	return rte_eth_rx_queue_setup(port, queue, desc, rte_eth_dev_socket_id(port), NULL, pool);
}

int pqs_port_tx_queue(uint16_t port, uint16_t queue, uint16_t desc)
{
	return rte_eth_tx_queue_setup(port, queue, desc, rte_eth_dev_socket_id(port), NULL);
}

int pqs_port_link(uint16_t port, struct pqs_port_link *out)
{
	struct rte_eth_link link;
	int ret = rte_eth_link_get_nowait(port, &link);

	if (ret != 0)
		return ret;
	out->up = link.link_status == RTE_ETH_LINK_UP;
	out->full_duplex = link.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
	out->speed_mbps = link.link_speed;
	return 0;
}

int pqs_port_mac(uint16_t port, uint8_t mac[6])
{
	struct rte_ether_addr addr;
	int ret = rte_eth_macaddr_get(port, &addr);

	if (ret == 0)
		memcpy(mac, addr.addr_bytes, 6);
	return ret;
}

int pqs_port_set_mac(uint16_t port, const uint8_t mac[6])
{
	struct rte_ether_addr addr;

	memcpy(addr.addr_bytes, mac, 6);
	return rte_eth_dev_default_mac_addr_set(port, &addr);
}

int pqs_port_join(uint16_t port, uint8_t (*groups)[6], uint32_t n)
{
	int ret;

	/* Six bytes each, one behind the other: an array of struct rte_ether_addr. */
	ret = rte_eth_dev_set_mc_addr_list(port, (struct rte_ether_addr *)groups, n);
	return ret == 0 ? 0 : rte_eth_allmulticast_enable(port);
}

int pqs_rx_timestamp(int *offset, uint64_t *flag)
{
	return rte_mbuf_dyn_rx_timestamp_register(offset, flag);
}

struct rte_ring *pqs_ring_create(const char *name, unsigned int n, int socket_id)
{
	return rte_ring_create(name, n, socket_id,
			       RING_F_SP_ENQ | RING_F_SC_DEQ | RING_F_EXACT_SZ);
}

struct rte_mbuf *pqs_ring_pop(struct rte_ring *ring)
{
	void *m;

	return rte_ring_dequeue(ring, &m) == 0 ? m : NULL;
}

int pqs_tel_add_dict_u64(struct rte_tel_data *data, const char *name, uint64_t value)
{
#if RTE_VERSION >= RTE_VERSION_NUM(23, 3, 0, 0)
	return rte_tel_data_add_dict_uint(data, name, value);
#else
	return rte_tel_data_add_dict_u64(data, name, value);
#endif
}

struct pqs_reassembly {
	struct rte_ip_frag_tbl *table;
	struct rte_ip_frag_death_row dead;
};

/* Places of a bucket of the library's table, a power of two; it looks into two buckets. */
#define PQS_FRAG_BUCKET 8

struct pqs_reassembly *pqs_reassembly_create(uint32_t datagrams, uint64_t max_age, int socket_id)
{
	struct pqs_reassembly *r = rte_zmalloc_socket("pqs_reassembly", sizeof(*r), 0, socket_id);

	if (r == NULL) {
		rte_errno = ENOMEM;
		return NULL;
	}
	r->table = rte_ip_frag_table_create((datagrams + PQS_FRAG_BUCKET - 1) / PQS_FRAG_BUCKET,
					    PQS_FRAG_BUCKET, datagrams, max_age, socket_id);
	if (r->table == NULL) {
		rte_free(r);
		rte_errno = ENOMEM;
		return NULL;
	}
	return r;
}

void pqs_reassembly_destroy(struct pqs_reassembly *r)
{
	rte_ip_frag_table_destroy(r->table);
	rte_free(r);
}

struct rte_mbuf *pqs_reassemble4(struct pqs_reassembly *r, struct rte_mbuf *m, uint16_t l2_len,
				 uint16_t l3_len, uint64_t now)
{
	m->l2_len = l2_len;
	m->l3_len = l3_len;
	return rte_ipv4_frag_reassemble_packet(r->table, &r->dead, m, now,
					       rte_pktmbuf_mtod_offset(m, struct rte_ipv4_hdr *, l2_len));
}

struct rte_mbuf *pqs_reassemble6(struct pqs_reassembly *r, struct rte_mbuf *m, uint16_t l2_len,
				 uint64_t now)
{
	struct rte_ipv6_hdr *ip = rte_pktmbuf_mtod_offset(m, struct rte_ipv6_hdr *, l2_len);

	m->l2_len = l2_len;
	m->l3_len = sizeof(*ip) + sizeof(struct rte_ipv6_fragment_ext);
	return rte_ipv6_frag_reassemble_packet(r->table, &r->dead, m, now, ip,
					       (struct rte_ipv6_fragment_ext *)(ip + 1));
}

void pqs_reassembly_expire(struct pqs_reassembly *r, uint64_t now)
{
	rte_ip_frag_table_del_expired_entries(r->table, &r->dead, now);
}

bool pqs_reassembly_dead(struct pqs_reassembly *r, struct rte_mbuf **m)
{
	if (r->dead.cnt == 0)
		return false;
	*m = r->dead.row[--r->dead.cnt];
	return true;
}
