"""answers kept under the clients' idempotency keys"""

import sqlalchemy as sa
from alembic import op

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('answers',
    sa.Column('name', sa.Text(), nullable=False, comment="hex SHA-256 of the user's id and the client's key"),
    sa.Column('user_id', sa.Uuid(), nullable=False),
    sa.Column('fingerprint', sa.Text(), nullable=False, comment='hex SHA-256 of the request'),
    sa.Column('status', sa.SmallInteger(), nullable=False),
    sa.Column('sealed', sa.LargeBinary(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['user_id'], ['users.id'], name=op.f('fk_answers_user_id_users'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_answers'))
    )
    op.create_index('ix_answers_created_at', 'answers', ['created_at'])
    op.create_index(op.f('ix_answers_user_id'), 'answers', ['user_id'])


def downgrade() -> None:
    op.drop_table('answers')
