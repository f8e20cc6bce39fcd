/* SPDX-License-Identifier: MIT */
/* cmd_joint.h - options of how the joint is made and trusted that generate and calibrate share. */
#ifndef DM_CMD_JOINT_H
#define DM_CMD_JOINT_H

#include <argp.h>

/* A child parser; its input is the struct dm_gen_opt that the options change. */
extern const struct argp cmd_joint_argp;

#endif
